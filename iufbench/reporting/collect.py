"""All runs of a results folder, recomputed from their raw records, with all inconsistencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iufbench.reporting.rundir import record_hashes
from iufbench.reporting.store import SCORES, Run, find_runs
from iufbench.reporting.undefined import remarks
from iufbench.reporting.worlds import differences
from iufbench.support.errors import InputError, RunError

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Collection:
    """The runs of a results folder.

    Attributes:
        runs: Complete runs.
        damaged: Unreadable directories, with the reason.
        notes: Inconsistencies, by run id.
        remarks: Undefined values and the run's own warnings, by run id.
        differences: Runs on different data, or scored by different code.
    """

    runs: list[Run]
    incomplete: list[Run] = field(default_factory=list)
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def footnotes(self) -> dict[str, list[str]]:
        """Everything that a table must state about a run, by run id."""
        found = {run.id: [*self.notes.get(run.id, []), *self.remarks.get(run.id, [])] for run in self.runs}
        return {run: lines for run, lines in found.items() if lines}

    def warnings(self) -> list[str]:
        """One line for everything that a reader of the results should know."""
        lines = [f"skipped {path}: {reason}" for path, reason in self.damaged]
        lines += [f"{run}: {note}" for run, notes in self.notes.items() for note in notes]
        runs_of: dict[str, list[str]] = {}
        for run, found in self.remarks.items():
            for line in found:
                runs_of.setdefault(line, []).append(run)
        for line, runs in runs_of.items():
            more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
            lines.append(f"{runs[0]}{more}: {line}")
        lines += self.differences
        return lines + [f"not counted: {run.id} is {run.record.status}" for run in self.incomplete]


def collect(results: Path | str, strict: bool = False) -> Collection:
    """Read every run below ``results``.

    Inconsistent runs and runs on different data or scored by different code become warnings; runs that are
    not comparable are shown in separate tables.

    Raises:
        InputError: There is no complete run.
        RunError: With ``strict``, a run is corrupted or inconsistent, or runs are not comparable.
    """
    found, damaged = find_runs(results, include_incomplete=True)
    runs, notes = [], {}
    for run in found:
        if not run.complete:
            continue
        try:
            run, problems = recompute(run)
        except RunError as error:
            damaged.append((run.path, str(error)))
            continue
        runs.append(run)
        if problems:
            notes[run.id] = problems
    said = {run.id: lines for run in runs if (lines := remarks(run))}
    apart = differences(runs)
    collection = Collection(runs, [r for r in found if not r.complete], damaged, notes, said, apart)
    if strict and (damaged or notes or apart):
        raise RunError("; ".join(Collection([], [], damaged, notes, {}, apart).warnings()))
    if not runs:
        reason = (
            f" ({len(damaged)} corrupted, {len(collection.incomplete)} incomplete)"
            if found or damaged
            else ""
        )
        raise InputError(
            f"no complete run below {Path(results) / 'runs'}{reason}; "
            "make one: iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic"
        )
    return collection


def recompute(run: Run) -> tuple[Run, list[str]]:
    """Recompute the image metrics of a run from its scores; returns the run and all inconsistencies.

    A modified summary or image metric thus cannot change a table: image metrics are computed from
    ``scores.csv.gz`` and summaries from the matrix; the summary in ``run.json`` is only compared. Pixel
    metrics cannot be recomputed without maps, but a changed file differs from its hash in ``run.json`` (not
    checked for runs of versions that stored no hashes).

    Raises RunError if the scores are corrupted.
    """
    notes = changed_files(run)
    if (run.path / SCORES).exists():
        run, changed, absent = _from_scores(run)
        if changed:
            notes.append(f"metrics.csv disagrees with scores.csv.gz ({changed[0]}; {len(changed)} in all)")
        if absent:
            notes.append(
                f"scores.csv.gz has no scores behind {len(absent)} values of metrics.csv ({absent[0]}, ...), "
                "which were not recomputed"
            )
    wrong = other_summaries(run)
    if wrong:
        notes.append(f"run.json's summary disagrees with metrics.csv ({wrong[0]}; {len(wrong)} in all)")
    return run, notes


def other_summaries(run: Run) -> list[str]:
    """Summaries in ``run.json`` that do not follow from ``metrics.csv``."""
    stored = run.record.summary
    wrong = []
    for level, values in run.summaries().items():
        for name, value in values.items():
            told = (stored.get(level) or {}).get(name)
            if told is None:  # not recorded by the version that wrote it, or undefined
                continue
            if not isinstance(told, (int, float)) or not abs(told - value) <= TOLERANCE:
                wrong.append(f"{level} {name} {told!r} instead of {value!r}")
    return wrong


def changed_files(run: Run) -> list[str]:
    """A line for each file of results that is not the one whose hash ``run.json`` has."""
    told, found = run.record.records_sha256, record_hashes(run.path)
    return [
        f"{name} {'was changed' if name in found else 'was removed'} after the run ended"
        for name, digest in told.items()
        if found.get(name) != digest
    ]


def _from_scores(run: Run) -> tuple[Run, list[str], list[str]]:
    """The run with image metrics from its scores, those that changed, and those that have no scores."""
    measured = run.measured
    column = {obj: i for i, obj in enumerate(run.objects)}
    keys = [(key, metric) for key, (level, metric) in enumerate(measured.keys) if level == "image"]
    computed = {
        (experience, column[obj], key): found[metric]
        for experience, obj, found in run.image_metrics()
        for key, metric in keys
        if metric in found
    }
    scored, image = {place[:2] for place in computed}, {key for key, _ in keys}
    values, changed, absent = measured.values.copy(), [], []
    places = zip(measured.experience.tolist(), measured.column.tolist(), measured.key.tolist())
    for i, place in enumerate(places):
        value = computed.get(place)
        if value is None:
            if scored and place[2] in image and place[:2] not in scored and not math.isnan(values[i]):
                absent.append(place)
            continue
        if not (abs(value - values[i]) <= TOLERANCE or (math.isnan(value) and math.isnan(values[i]))):
            changed.append(place)
        values[i] = value

    def named(places: Sequence[tuple[int, int, int]]) -> list[str]:
        return [f"{measured.keys[k][1]} of {run.objects[obj]} after experience {t}" for t, obj, k in places]

    return run.with_values(values), named(changed), named(absent)
