"""Re-evaluation of a finished run: planned again from its run.json, evaluated from its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iufbench.cards.request import Request
from iufbench.engine.checkpoint import checkpoint_path, load_checkpoint
from iufbench.engine.plan import Plan, prepare
from iufbench.reporting.maps import maps_path, write_maps
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest
from iufbench.support.nested import differing, flat
from iufbench.support.progress import Progress

if TYPE_CHECKING:
    from iufbench.evaluation.objects import ObjectTest


Key = tuple[str, str, str]  # object, level, metric


@dataclass(frozen=True)
class Difference:
    """A recomputed value that differs from the run directory; NaN means missing or undefined."""

    experience: int
    object: str
    level: str
    metric: str
    stored: float
    again: float

    def __str__(self) -> str:
        place = f"experience {self.experience}, {self.object}, {self.level} {self.metric}"
        return f"{place}: stored {self.stored!r}, now {self.again!r}"


def plan_again(run: Run, data_root: Path | None = None, **changes: Any) -> Plan:
    """Rebuild the plan of a run, with its number of threads.

    ``data_root``: current location of its data, if it has changed; ``changes``: overrides of its request.
    Raises RunError, naming the difference, if the data or the card have changed.
    """
    if not run.record.request:
        raise RunError(f"{run.path}: run.json does not contain its request; run it again")
    request = Request.from_dict(run.record.request)
    recorded = run.record.dataset.root
    if data_root is not None:
        changes |= {"data_root": data_root, "synthetic": False}
    elif request.data_root is None and not request.synthetic and recorded and Path(recorded).is_dir():
        changes["data_root"] = Path(recorded)
    threads = run.record.environment.threads
    plan = prepare(replace(request, threads=threads or request.threads, **changes), progress=False)
    if plan.dataset.fingerprint() != run.record.dataset.fingerprint:
        raise RunError(f"{run.path} was made from different data than {plan.dataset.root} contains now")
    if plan.recipe_hash != run.record.recipe_hash:
        changed = _changed(run.record.recipe, plan.recipe.as_dict())
        raise RunError(
            f"{run.path} was made with a different recipe than that of its card now: "
            f"{changed or 'other weights'}; restore the card it was made with"
        )
    return plan


def _changed(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first few keys that differ, with both values."""
    words = ("title", "description", "provenance")
    cards = [flat({k: v for k, v in card.items() if k not in words}) for card in (then, now)]
    changed = list(differing(*cards).items())[:5]
    return ", ".join(f"{key} was {one!r} and is {other!r}" for key, (one, other) in changed)


def evaluate_run(
    path: Path,
    progress: Progress,
    save_maps: bool = False,
    objects: Sequence[str] | None = None,
    device: str = "auto",
    data_root: Path | None = None,
) -> list[Difference]:
    """Evaluate every experience of a run again from its checkpoint; returns all differences in results.

    With ``save_maps`` the anomaly maps are stored below ``maps/`` as float16 (98 KiB per image and
    experience at 224x224, before compression), one ``.npz`` per object with ``maps`` [N, S, S] and
    ``images`` [N]. ``objects`` restricts the evaluation. Raises InputError for unknown objects, RunError if
    a checkpoint is missing, or the data, card or weights are not those of the run.
    """
    run = load_run(path)
    wanted = _wanted(run, objects)
    plan = plan_again(run, data_root)
    from iufbench.engine.assembly import assemble  # after the plan, which imports Avalanche
    from iufbench.engine.runner import evaluate_objects
    from iufbench.support.device import choose_device

    steps = len(plan.experiences)
    for number in range(steps):
        if not checkpoint_path(path, number).is_file():
            raise RunError(f"{checkpoint_path(path, number)} is missing: the run must be repeated")
    parts = assemble(plan, choose_device(device), progress, compare_cache=True)
    weights = run.record.backbone.weights_sha256
    if weights != parts.backbone.weights_sha256:
        raise RunError(f"{path} was made with different backbone weights ({weights}) than those found now")
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


def compared(experience: int, stored: Mapping[Key, float], again: Mapping[Key, float]) -> list[Difference]:
    """The values that differ between two sets, compared bit by bit; NaN stands for a missing value."""
    keys = {**stored, **again}
    one, other = ({key: float(values.get(key, np.nan)) for key in keys} for values in (stored, again))
    return [Difference(experience, *key, *pair) for key, pair in differing(one, other).items()]


def _wanted(run: Run, objects: Sequence[str] | None) -> set[str]:
    for name in objects or ():
        if name not in run.objects:
            known = ", ".join(run.objects)
            raise InputError(f"no object '{name}' in {run.id}{suggest(name, run.objects)} (has: {known})")
    return set(objects or run.objects)


def _save(path: Path, experience: int, test: ObjectTest, maps: np.ndarray) -> None:
    write_maps(maps_path(path, experience, test.object), maps, test.names)
