"""Repeat a run from its run.json and compare the two, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iufbench.reporting.record import INFO, RunRecord
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress
from iufbench.trust.reevaluate import compared, plan_again

ENVIRONMENT = ("python", "system", "packages", "device", "processor", "threads", "variables", "source", "git")


@dataclass(frozen=True)
class Repetition:
    """``path``: the new run; ``differences`` of the numbers; ``surroundings``: what else was different."""

    path: Path
    differences: list[str]
    surroundings: list[str]


def usual_place(run: Run) -> Path:
    """``<results>/reruns`` beside ``runs``, where no table looks; a folder beside a run that lies alone."""
    place = run.path.resolve()
    if place.as_posix().endswith(f"/runs/{run.id}"):
        return place.parents[len(Path(run.id).parts)] / "reruns"
    return place.with_name(f"{place.name}-rerun")


def rerun(
    path: Path,
    progress: Progress,
    results: Path | None = None,
    device: str | None = None,
    data_root: Path | None = None,
) -> Repetition:
    """Do a run again, on its own device and threads, into ``results`` (``usual_place`` when None).

    An interrupted repetition goes on; a finished one is done anew. Raises RunError when data, card or the
    original are not as they were, InputError when ``results`` would be the original itself.
    """
    run = load_run(path)
    if not run.complete:
        raise RunError(
            f"{path}: the run is {run.record.status}, not complete: there is nothing to compare with"
        )
    recorded = run.record.environment.device or "auto"
    changes = {"results": results or usual_place(run), "device": device or recorded}
    plan = plan_again(run, data_root, **changes)
    if plan.path.resolve() == run.path.resolve():
        raise InputError(f"--results {changes['results']} is where the run itself lies: name another folder")
    from iufbench.engine.runner import execute, is_complete  # after the plan, which brings Avalanche

    again = load_run(execute(plan, progress, restart=(plan.path / INFO).is_file() and is_complete(plan)))
    return Repetition(
        again.path, list(differences_of(run, again)), list(_surroundings(run.record, again.record))
    )


def differences_of(one: Run, other: Run) -> Iterator[str]:
    """Metrics and scores that are not the same to the last bit."""
    for number in range(max(len(one.experiences), len(other.experiences))):
        metrics = [
            {
                (r.object, r.level, r.metric): r.value
                for r in run.metrics[run.metrics["experience"] == number].itertuples()
            }
            for run in (one, other)
        ]
        yield from map(str, compared(number, *metrics))
    tables = [
        {
            (r.object, "image", f"score of {r.image}, experience {r.experience}"): r.score
            for r in run.scores().itertuples()
        }
        for run in (one, other)
    ]
    scores = compared(0, *tables)
    if scores:
        largest = max(abs(d.stored - d.again) for d in scores)
        yield f"scores.csv.gz: {len(scores)} of {len(tables[0])} scores differ, by {largest:.3g} at most"


def _surroundings(then: RunRecord, now: RunRecord) -> Iterator[str]:
    """What was different around the two runs: it may explain other numbers."""
    before, after = then.environment, now.environment
    for part in ENVIRONMENT:
        old, new = getattr(before, part), getattr(after, part)
        if isinstance(old, dict) and isinstance(new, dict):
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name):
                    yield f"{part} {name}: {old.get(name)} then, {new.get(name)} now"
        elif old != new:
            yield f"{part}: {old} then, {new} now"
    if then.strategy.learner_sha256 != now.strategy.learner_sha256:
        yield "the learner's source has changed"
