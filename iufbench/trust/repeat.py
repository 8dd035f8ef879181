"""``run --verify``: does the same command give the same numbers on this machine? Tried on one experience."""

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
    """Do the first experience twice, from reading its images on; writes nothing.

    Returns a line for everything that differs in a single bit, and how many things were compared: tensors
    and values of the learner's state, metrics, and scores of images.
    """
    first, second = (_outcome(plan, progress, again) for again in ("once", "again"))
    lines = [_line(name, *pair) for name, pair in differing(first, second).items()]
    return lines, len({**first, **second})


def _outcome(plan: Plan, progress: Progress, label: str) -> dict[str, Any]:
    """What the first experience leaves, by name."""
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
    """What differs between two values that are not the same."""
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return f"{name}: {one!r} and {other!r}"
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{name}: {one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}"
    apart = (one != other) & ~((one != one) & (other != other))
    largest = float((one.double() - other.double()).abs()[apart].max())
    return f"{name}: {int(apart.sum())} of {one.numel()} values differ, by up to {largest:.3g}"
