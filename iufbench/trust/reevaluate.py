"""Re-evaluation of a finished run: planned again from its run.json, evaluated from its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iufbench.engine.again import plan_again, require_weights
from iufbench.engine.checkpoint import checkpoint_path, load_checkpoint
from iufbench.reporting.maps import maps_path, write_maps
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest
from iufbench.support.progress import Progress
from iufbench.trust.differences import Difference, compared

if TYPE_CHECKING:
    from iufbench.evaluation.objects import ObjectTest


def evaluate_run(
    path: Path,
    progress: Progress,
    save_maps: bool = False,
    objects: Sequence[str] | None = None,
    device: str = "auto",
    data_root: Path | None = None,
    trust_code: bool = False,
) -> list[Difference]:
    """Evaluate every experience of a run again from its checkpoint.

    Args:
        path: Directory of a finished run.
        progress: Shows a bar.
        save_maps: Store the anomaly maps below ``maps/`` as float16 (98 KiB per image and experience at
            224x224, before compression), one ``.npz`` per object with ``maps`` [N, S, S] and ``images`` [N].
        objects: Evaluate only these.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Current location of the data, if they were moved.
        trust_code: As for ``plan_again``.

    Returns:
        All differences in results.

    Raises:
        InputError: An object is unknown.
        RunError: A checkpoint is missing, or data, card or weights are not those of the run.
    """
    run = load_run(path)
    wanted = _wanted(run, objects)
    plan = plan_again(run, data_root, trust_code)
    from iufbench.engine.assembly import assemble  # after the plan, which imports Avalanche
    from iufbench.engine.runner import evaluate_objects
    from iufbench.support.device import choose_device

    steps = len(plan.experiences)
    for number in range(steps):
        if not checkpoint_path(path, number).is_file():
            raise RunError(f"{checkpoint_path(path, number)} is missing: the run must be repeated")
    parts = assemble(plan, choose_device(device), progress, compare_cache=True)
    require_weights(run, parts.backbone.weights_sha256)
    scores = run.scores()
    differences = []
    names = plan.protocol.objects
    for number in range(steps):
        seen = plan.seen(number)
        load_checkpoint(path, number, parts.strategy)
        if save_maps:
            parts.evaluation.on_maps = partial(_save, path, number)
        shown = names if plan.request.eval_unseen else names[:seen]
        chosen = [i for i, name in enumerate(shown) if name in wanted]
        again = evaluate_objects(parts, number, seen, chosen, progress, f"experience {number + 1}/{steps}")
        rows = run.metrics[(run.metrics["experience"] == number) & run.metrics["object"].isin(wanted)]
        stored = {(r.object, r.level, r.metric): r.value for r in rows.itertuples()}
        found = {(r.object, r.level, r.metric): r.value for r in again.metrics}
        differences += compared(number, stored, found)
        rows = scores[(scores["experience"] == number) & scores["object"].isin(wanted)]
        stored = {(r.object, "image", f"score of {r.image}"): r.score for r in rows.itertuples()}
        found = {(r.object, "image", f"score of {r.image}"): r.score for r in again.scores}
        differences += compared(number, stored, found)
    return differences


def _wanted(run: Run, objects: Sequence[str] | None) -> set[str]:
    for name in objects or ():
        if name not in run.objects:
            known = ", ".join(run.objects)
            raise InputError(f"no object '{name}' in {run.id}{suggest(name, run.objects)} (has: {known})")
    return set(objects or run.objects)


def _save(path: Path, experience: int, test: ObjectTest, maps: np.ndarray) -> None:
    write_maps(maps_path(path, experience, test.object), maps, test.names)
