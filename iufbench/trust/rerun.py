"""Repeats a run from its run.json and compares both bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from iufbench.engine.again import plan_again
from iufbench.reporting.record import INFO, RunRecord
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress
from iufbench.trust.differences import compared

ENVIRONMENT = ("python", "system", "packages", "device", "processor", "threads", "variables", "source", "git")


@dataclass(frozen=True)
class Repetition:
    """``path``: the new run; ``differences`` in results; ``surroundings``: differences in the environment."""

    path: Path
    differences: list[str]
    surroundings: list[str]


def usual_place(run: Run) -> Path:
    """``<results>/reruns`` next to ``runs``, ignored by tables; for a standalone run, a folder next to it."""
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
    trust_code: bool = False,
) -> Repetition:
    """Repeat a run with its own number of threads and compare the results.

    An interrupted repetition is resumed; a finished one is started again.

    Args:
        path: Directory of a finished run.
        progress: Shows bars.
        results: Results folder of the repetition; None for ``usual_place``.
        device: None: the run's own.
        data_root: Current location of the data, if they were moved.
        trust_code: As for ``plan_again``.

    Returns:
        The repetition with all differences.

    Raises:
        InputError: ``results`` contains the original run.
        RunError: Data, card or the original run have changed.
    """
    run = load_run(path)
    if not run.complete:
        raise RunError(
            f"{path}: the run is {run.record.status}, not complete: there is nothing to compare with"
        )
    recorded = run.record.environment.device or "auto"
    changes = {"results": results or usual_place(run), "device": device or recorded}
    plan = plan_again(run, data_root, trust_code, **changes)
    if plan.path.resolve() == run.path.resolve():
        raise InputError(f"--results {changes['results']} contains the run itself: choose another folder")
    from iufbench.engine.runner import execute, is_complete  # after the plan, which imports Avalanche

    again = load_run(execute(plan, progress, restart=(plan.path / INFO).is_file() and is_complete(plan)))
    return Repetition(
        again.path, list(differences_of(run, again)), list(_surroundings(run.record, again.record))
    )


def differences_of(one: Run, other: Run) -> Iterator[str]:
    """Metrics and scores that differ in any bit."""
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
    """Differences between the environments of the two runs, which may explain different results."""
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
