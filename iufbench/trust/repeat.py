"""``run --verify``: does the same command give the same numbers on this machine? Tried on one experience."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch

from iufbench.engine.assembly import assemble
from iufbench.engine.plan import Plan
from iufbench.engine.runner import epochs_of, evaluate_objects, train_experience
from iufbench.support.device import choose_device
from iufbench.support.progress import Progress
from iufbench.support.seeding import Seeds, derive, seed_everything


def do_twice(plan: Plan, progress: Progress) -> tuple[list[str], int]:
    """Do the first experience twice, from reading its images on; writes nothing.

    Returns a line for everything that differs in a single bit, and how many things were compared: tensors
    and values of the learner's state, metrics, and scores of images.
    """
    first, second = (_outcome(plan, progress, again) for again in ("once", "again"))
    names = dict.fromkeys([*first, *second])
    lines = [_difference(name, first.get(name), second.get(name)) for name in names]
    return [line for line in lines if line is not None], len(names)


def _outcome(plan: Plan, progress: Progress, label: str) -> dict[str, Any]:
    """What the first experience leaves, by name."""
    parts = assemble(plan, choose_device(plan.request.device), progress)
    seed_everything(derive(Seeds.of(plan.request.seed).training, 0))
    for _ in train_experience(parts, 0, epochs_of(plan, 0), progress, f"{label}: training"):
        pass
    state = dict(_leaves(deepcopy(parts.strategy.state())))
    objects = len(plan.experiences[0])
    rows = evaluate_objects(parts, 0, objects, range(objects), progress, label)
    metrics = {f"{r.level} {r.metric} of {r.object}": r.value for r in rows.metrics}
    return {**state, **metrics, **{f"score of {r.image}": r.score for r in rows.scores}}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What is nested in dicts and lists, by dotted names."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _difference(name: str, one: Any, other: Any) -> str | None:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        same = one == other or (one != one and other != other)
        return None if same else f"{name}: {one!r} and {other!r}"
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{name}: {one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}"
    apart = (one != other) & ~((one != one) & (other != other))
    if not bool(apart.any()):
        return None
    largest = float((one.double() - other.double()).abs()[apart].max())
    return f"{name}: {int(apart.sum())} of {one.numel()} values differ, by up to {largest:.3g}"
