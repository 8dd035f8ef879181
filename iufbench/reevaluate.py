"""Evaluate a finished run again from its checkpoints: to check its numbers, or to keep its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iufbench.checkpoint import checkpoint_path, load_checkpoint
from iufbench.errors import InputError, RunError
from iufbench.fields import suggest
from iufbench.maps import maps_path, write_maps
from iufbench.plan import Request, prepare
from iufbench.progress import Progress
from iufbench.store import Run, load_run

if TYPE_CHECKING:
    from iufbench.evaluation import ObjectTest


@dataclass(frozen=True)
class Difference:
    """A value that came out differently from what ``metrics.csv`` holds."""

    experience: int
    object: str
    level: str
    metric: str
    stored: float
    again: float


def evaluate_run(
    path: Path,
    progress: Progress,
    save_maps: bool = False,
    objects: Sequence[str] | None = None,
    device: str = "auto",
) -> list[Difference]:
    """Every experience of a run again from its checkpoint; returns what differs from its metrics.

    With ``save_maps`` the anomaly maps are kept below ``maps/`` as float16 (98 KiB per image and
    experience at 224x224, before compression), one ``.npz`` per object with ``maps`` [N, S, S] and
    ``images`` [N]. ``objects`` restricts the work. Raises InputError for unknown objects, RunError when
    a checkpoint is missing or the data are not those of the run.
    """
    run = load_run(path)
    wanted = _wanted(run, objects)
    if "request" not in run.info:
        raise RunError(f"{path}: run.json does not say how it was made; run it anew")
    plan = prepare(Request.from_dict(run.info["request"]), progress=False)
    from iufbench.device import choose_device
    from iufbench.runner import assemble, evaluate_objects  # after the plan, which brings Avalanche

    if plan.dataset.fingerprint() != run.info["dataset"]["fingerprint"]:
        raise RunError(f"{path} was made from other data than {plan.dataset.root} holds now")
    if plan.recipe_hash != run.info["recipe_hash"]:
        raise RunError(f"{path} was made with another recipe than its card gives now ({plan.recipe_hash})")
    steps = len(plan.experiences)
    for number in range(steps):
        if not checkpoint_path(path, number).is_file():
            raise RunError(f"{checkpoint_path(path, number)} is missing: the run must be done anew")
    parts = assemble(plan, choose_device(device), progress)
    differences, seen = [], 0
    names = plan.protocol.objects
    for number, group in enumerate(plan.experiences):
        seen += len(group)
        load_checkpoint(path, number, parts.strategy)
        if save_maps:
            parts.evaluation.on_maps = partial(_save, path, number)
        chosen = [i for i, name in enumerate(names[:seen]) if name in wanted]
        again = evaluate_objects(parts, number, seen, chosen, progress, f"experience {number + 1}/{steps}")
        stored = {
            (r.object, r.level, r.metric): r.value
            for r in run.metrics[run.metrics["experience"] == number].itertuples()
        }
        for row in again.metrics:
            before = stored.get((row.object, row.level, row.metric), np.nan)
            if not (before == row.value or (np.isnan(before) and np.isnan(row.value))):
                differences.append(
                    Difference(number, row.object, row.level, row.metric, float(before), row.value)
                )
    return differences


def _wanted(run: Run, objects: Sequence[str] | None) -> set[str]:
    for name in objects or ():
        if name not in run.objects:
            known = ", ".join(run.objects)
            raise InputError(f"no object '{name}' in {run.id}{suggest(name, run.objects)} (has: {known})")
    return set(objects or run.objects)


def _save(path: Path, experience: int, test: ObjectTest, maps: np.ndarray) -> None:
    write_maps(maps_path(path, experience, test.object), maps, test.names)
