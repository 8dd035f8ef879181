"""Where a run is resumed, and the conditions that must not have changed since it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iufbench.engine.checkpoint import (
    check_records,
    evaluated_experiences,
    load_checkpoint,
    load_within,
    remove_state,
    tidy,
    trained_experiences,
)
from iufbench.engine.plan import Plan
from iufbench.evaluation.rows import ScoreRow
from iufbench.reporting.record import INFO, PER_EXPERIENCE, RunRecord, read_record
from iufbench.reporting.rundir import ROUTED, SCORE_COLUMNS, SCORES, is_claimed, read_rows
from iufbench.reporting.thresholds import read_calibration
from iufbench.support.errors import InputError, RunError
from iufbench.support.nested import differing, flat
from iufbench.support.progress import Progress

if TYPE_CHECKING:
    from iufbench.engine.assembly import Parts


@dataclass(frozen=True)
class Start:
    """The first ``trained`` and ``evaluated`` experiences are complete. ``inside``: the state inside the next
    one, after ``epochs`` epochs whose training took ``seconds``; None if it starts from 0.
    """

    trained: int = 0
    evaluated: int = 0
    inside: dict[str, Any] | None = None
    epochs: int = 0
    seconds: float = 0.0

    @property
    def is_beginning(self) -> bool:
        return self.trained == 0 and self.inside is None


def starting_point(plan: Plan, strategy: Any, info: RunRecord, restart: bool, progress: Progress) -> Start:
    """Restore ``strategy`` and the costs in ``info`` from a run directory.

    Raises:
        InputError: The run was started under other conditions than those in ``info``.
        RunError: A checkpoint is corrupted, or recorded results have changed.
    """
    run = plan.path
    if restart or not (run / INFO).is_file():
        remove_state(run)
    tidy(run)
    trained = trained_experiences(run)
    try:
        inside = load_within(run, trained, strategy.device)
    except RunError as error:
        progress.say(f"{error}: resuming without it")
        inside = None
    if trained == 0 and inside is None:
        remove_state(run)
        return Start()
    before = read_record(run)
    _refuse_changes(run, before, info)
    check_records(run)
    if trained:
        load_checkpoint(run, trained - 1, strategy)
    spent = before.seconds
    info.seconds = replace(spent, total=spent.features + spent.train + spent.evaluate)
    info.resumed = [*before.resumed, trained]
    info.shared_base = before.shared_base  # the origin of a base experience shared by a sweep
    info.parent = before.parent
    info.costs = replace(before.costs, **{k: getattr(before.costs, k)[:trained] for k in PER_EXPERIENCE})
    place = f"after experience {trained}/{len(plan.experiences)}"
    start = Start(trained, evaluated_experiences(run))
    if inside is not None:
        state = inside["state"]
        epochs = state["clock"]["train_exp_epochs"]
        start = Start(trained, start.evaluated, state, epochs, inside["seconds"])
        place = f"inside experience {trained + 1}/{len(plan.experiences)}, after epoch {epochs}"
    progress.say(f"resuming {place} (--restart starts again)")
    for difference in _differences(_machine(before), _machine(info)):
        progress.say(f"note: {difference}; the last digits may differ from those of an uninterrupted run")
    return start


def _refuse_changes(run: Path, before: RunRecord, info: RunRecord) -> None:
    changed = _differences(_made_of(before), _made_of(info))
    if changed:
        raise InputError(
            f"{run} holds an unfinished run under other conditions ({'; '.join(changed)}): undo the change "
            "to resume it, or use --restart to start again"
        )


def _made_of(info: RunRecord) -> dict[str, Any]:
    """The identity of a run, which is wrong in a renamed directory, and whatever else affects its numbers."""
    return {
        "run": info.id,
        "experiences of the protocol": info.protocol.experiences,
        "backbone weights, SHA-256": info.backbone.weights_sha256,
        "--eval-unseen": info.request.get("eval_unseen"),
    }


def _machine(info: RunRecord) -> dict[str, Any]:
    where = info.environment
    return {"device": where.device, "threads": where.threads, "torch": where.packages.get("torch")}


def other_orientation(plan: Plan, record: RunRecord) -> bool:
    """Whether a recorded run handled EXIF orientations differently than the data set's card says now."""
    return record.dataset.orientation == ("ignored" if plan.dataset.decoding.upright else "applied")


def what_differs(plan: Plan, record: RunRecord) -> str:
    """How the data of a recorded run differ from those of the plan."""
    if other_orientation(plan, record):
        return f"EXIF orientations were {record.dataset.orientation}"
    before, now = record.protocol.objects, plan.protocol.objects
    if set(before) == set(now):
        return "its file list or file sizes differ"
    new = [name for name in now if name not in before]
    return (
        f"of the objects {', '.join(before)}; here the first are {', '.join(now)}; a new object that sorts "
        f"first changes the order: --order {','.join(before)} keeps that of the run, with new objects at its "
        f"end: --order {','.join([*before, *new])}"
    )


def other_order(plan: Plan) -> str | None:
    """A message about a run on the same data set with these objects in a different order; None without one.

    Objects of a folder without a card are in the order of their names, so a new one can precede those of
    earlier runs.
    """
    now = plan.protocol.objects
    if plan.dataset_card is not None or plan.protocol.order != "dataset" or (plan.path / INFO).is_file():
        return None
    for protocol in sorted(plan.path.parents[2].parent.glob("*")):
        path = next(protocol.glob(f"*/*/*/{INFO}"), None)
        if path is None:
            continue
        try:
            record = read_record(path.parent)
        except RunError:
            continue
        before = record.protocol.objects
        usual = record.protocol.order == "dataset" and set(before) <= set(now)
        if usual and before != now[: len(before)]:
            order = ",".join([*before, *(name for name in now if name not in before)])
            return (
                f"{path.parent} has the objects in the order {', '.join(before)}, this run in the order "
                f"{', '.join(now)}; to keep the former: --order {order}"
            )
    return None


def other_recipe(plan: Plan) -> str | None:
    """A message about an unfinished run of the same strategy, protocol and seed with a different recipe.

    This happens if the card of a stopped run was edited: the new recipe has its own directory. None if there
    is no such run, or if it is currently executed.
    """
    if (plan.path / INFO).is_file():
        return None
    now = _flat(plan.recipe.as_dict())
    for path in sorted(plan.path.parent.parent.glob(f"*/{plan.path.name}/{INFO}")):
        try:
            record = read_record(path.parent)
        except RunError:
            continue
        if record.complete or is_claimed(path.parent):
            continue
        changed = _differences(_flat(record.recipe), now)
        return (
            f"note: {path.parent} is an unfinished run with a different recipe ({'; '.join(changed)}); "
            "this starts a new run beside it"
        )
    return None


_WORDS = ("title", "description", "provenance", "resources")


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``{"base.lr": 1e-4, ...}`` as on a card, without keys that affect no number."""
    named = {key.removeprefix("options."): value for key, value in flat(recipe).items()}
    return {k: v for k, v in named.items() if k.partition(".")[0] not in _WORDS}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [f"{k}: {then} before, {new} now" for k, (then, new) in differing(before, now).items()]


def recall_thresholds(run: Path, parts: Parts, evaluated: int) -> None:
    """Restore the thresholds frozen in the first ``evaluated`` experiences from the records."""
    thresholds = parts.evaluation.thresholds
    if thresholds is None or not evaluated:
        return
    calibration = read_calibration(run)[:evaluated]
    introduced = {test.object: str(test.introduced) for test in parts.evaluation.tests}
    new = [
        ScoreRow(row["object"], row["image"], int(row["label"]), float(row["score"]))
        for row in read_rows(run / SCORES, SCORE_COLUMNS, (ROUTED,))
        if row["experience"] == introduced[row["object"]] and int(row["experience"]) < evaluated
    ]
    thresholds.recall(calibration, new)
