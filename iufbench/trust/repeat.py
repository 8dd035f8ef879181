"""``run --verify``: checks on one experience that a run is reproducible on this machine."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from iufbench.engine.assembly import assemble
from iufbench.engine.plan import Plan
from iufbench.engine.runner import evaluate_objects, train_experience
from iufbench.support.device import choose_device
from iufbench.support.nested import differing, flat
from iufbench.support.progress import Progress
from iufbench.support.seeding import Seeds, derive, seed_everything


def do_twice(plan: Plan, progress: Progress) -> tuple[list[str], int]:
    """Run the first experience twice, starting with loading its images; writes nothing.

    Returns a line for everything that differs in any bit, and the number of compared items: tensors and
    values of the learner's state, metrics, and image scores.
    """
    first, second = (_outcome(plan, progress, again) for again in ("once", "again"))
    lines = [_line(name, *pair) for name, pair in differing(first, second).items()]
    return lines, len({**first, **second})


def _outcome(plan: Plan, progress: Progress, label: str) -> dict[str, Any]:
    """The results of the first experience, by name."""
    parts = assemble(plan, choose_device(plan.request.device), progress)
    seed_everything(derive(Seeds.of(plan.request.seed).training, 0))
    for _ in train_experience(parts, 0, plan.epochs(0), progress, f"{label}: training"):
        pass
    state = flat(deepcopy(parts.strategy.state()))
    objects = len(plan.experiences[0])
    rows = evaluate_objects(parts, 0, objects, range(objects), progress, label)
    metrics = {f"{r.level} {r.metric} of {r.object}": r.value for r in rows.metrics}
    return {**state, **metrics, **{f"score of {r.image}": r.score for r in rows.scores}}


def _line(name: str, one: Any, other: Any) -> str:
    """Describe the difference between two values."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return f"{name}: {one!r} and {other!r}"
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{name}: {one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}"
    apart = (one != other) & ~((one != one) & (other != other))
    largest = float((one.double() - other.double()).abs()[apart].max())
    return f"{name}: {int(apart.sum())} of {one.numel()} values differ, by up to {largest:.3g}"
