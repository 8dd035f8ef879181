"""A finished run again, from what its run.json says: planned anew, evaluated from its checkpoints."""

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
    """A value that came out differently from what the run directory holds; NaN: missing or undefined."""

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
    """The plan that a run was made by, on the threads that it was made with.

    ``data_root``: where its data lie now, if elsewhere; ``changes``: of its request. Raises RunError when
    the data or the card are not what they were, naming what is different.
    """
    if not run.record.request:
        raise RunError(f"{run.path}: run.json does not say how it was made; run it anew")
    request = Request.from_dict(run.record.request)
    recorded = run.record.dataset.root
    if data_root is not None:
        changes |= {"data_root": data_root, "synthetic": False}
    elif request.data_root is None and not request.synthetic and recorded and Path(recorded).is_dir():
        changes["data_root"] = Path(recorded)
    threads = run.record.environment.threads
    plan = prepare(replace(request, threads=threads or request.threads, **changes), progress=False)
    if plan.dataset.fingerprint() != run.record.dataset.fingerprint:
        raise RunError(f"{run.path} was made from other data than {plan.dataset.root} holds now")
    if plan.recipe_hash != run.record.recipe_hash:
        changed = _changed(run.record.recipe, plan.recipe.as_dict())
        raise RunError(
            f"{run.path} was made with another recipe than its card gives now: {changed or 'other weights'}; "
            f"go back to the card it was made with"
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
    """Every experience of a run again from its checkpoint; returns what differs from its metrics and scores.

    With ``save_maps`` the anomaly maps are kept below ``maps/`` as float16 (98 KiB per image and
    experience at 224x224, before compression), one ``.npz`` per object with ``maps`` [N, S, S] and
    ``images`` [N]. ``objects`` restricts the work. Raises InputError for unknown objects, RunError when
    a checkpoint is missing, or the data, card or weights are not those of the run.
    """
    run = load_run(path)
    wanted = _wanted(run, objects)
    plan = plan_again(run, data_root)
    from iufbench.engine.assembly import assemble  # after the plan, which brings Avalanche
    from iufbench.engine.runner import evaluate_objects
    from iufbench.support.device import choose_device

    steps = len(plan.experiences)
    for number in range(steps):
        if not checkpoint_path(path, number).is_file():
            raise RunError(f"{checkpoint_path(path, number)} is missing: the run must be done anew")
    parts = assemble(plan, choose_device(device), progress, compare_cache=True)
    weights = run.record.backbone.weights_sha256
    if weights != parts.backbone.weights_sha256:
        raise RunError(f"{path} was made with other backbone weights ({weights}) than are found now")
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
    """What differs between two sets of values, bit by bit; NaN stands for a value that is not there."""
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
