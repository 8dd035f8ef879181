"""All runs of a results folder, recomputed from their raw records, with all that is wrong with them."""

from __future__ import annotations

import math
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
    """``runs`` are complete; ``damaged`` could not be read.

    ``notes`` are disagreements and ``remarks`` what has no value and what the run warned of, by run id;
    ``differences`` say that runs are on different data or of code that scores differently.
    """

    runs: list[Run]
    incomplete: list[Run] = field(default_factory=list)
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def footnotes(self) -> dict[str, list[str]]:
        """All that a table must say about a run, by run id."""
        found = {run.id: [*self.notes.get(run.id, []), *self.remarks.get(run.id, [])] for run in self.runs}
        return {run: lines for run, lines in found.items() if lines}

    def warnings(self) -> list[str]:
        """One line for everything a reader of the results should know."""
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

    Raises InputError when there is none to show, and with ``strict`` RunError for anything damaged or
    inconsistent, and for runs on different data or by code that scores differently; otherwise these become
    warnings, and what differs stands in separate tables.
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
            f" ({len(damaged)} damaged, {len(collection.incomplete)} incomplete)" if found or damaged else ""
        )
        raise InputError(
            f"no complete run below {Path(results) / 'runs'}{reason}; "
            "make one: iufbench run --protocol visa_8_1x4 --strategy iuf --synthetic"
        )
    return collection


def recompute(run: Run) -> tuple[Run, list[str]]:
    """The run with its image metrics computed again from the scores of its images, and what disagreed.

    A changed summary or image metric thus cannot change a table: image metrics come from
    ``scores.csv.gz``, summaries from the matrix, and ``run.json``'s own summary is only compared. Pixel
    metrics cannot be computed again without maps: that a file of results is not the one the run left is
    seen by its hash in ``run.json`` (runs of versions that kept none are not checked).
    Raises RunError when the scores are damaged.
    """
    notes = _changed_files(run)
    if (run.path / SCORES).exists():
        run, changed = _from_scores(run)
        if changed:
            notes.append(f"metrics.csv disagrees with scores.csv.gz ({changed[0]}; {len(changed)} in all)")
    stored = run.record.summary
    wrong = []
    for level, values in run.summaries().items():
        for name, value in values.items():
            told = (stored.get(level) or {}).get(name)
            if told is None:  # not recorded by the version that wrote it, or undefined
                continue
            if not isinstance(told, (int, float)) or not abs(told - value) <= TOLERANCE:
                wrong.append(f"{level} {name} {told!r} instead of {value!r}")
    if wrong:
        notes.append(f"run.json's summary disagrees with metrics.csv ({wrong[0]}; {len(wrong)} in all)")
    return run, notes


def _changed_files(run: Run) -> list[str]:
    told, found = run.record.records_sha256, record_hashes(run.path)
    return [
        f"{name} {'was changed' if name in found else 'was removed'} after the run ended"
        for name, digest in told.items()
        if found.get(name) != digest
    ]


def _from_scores(run: Run) -> tuple[Run, list[str]]:
    measured = run.measured
    column = {obj: i for i, obj in enumerate(run.objects)}
    computed = {
        (experience, column[obj], key): found[metric]
        for experience, obj, found in run.image_metrics()
        for key, (level, metric) in enumerate(measured.keys)
        if level == "image" and metric in found
    }
    values, changed = measured.values.copy(), []
    places = zip(measured.experience.tolist(), measured.column.tolist(), measured.key.tolist())
    for i, place in enumerate(places):
        value = computed.get(place)
        if value is None:
            continue
        if not (abs(value - values[i]) <= TOLERANCE or (math.isnan(value) and math.isnan(values[i]))):
            experience, obj, key = place
            changed.append(f"{measured.keys[key][1]} of {run.objects[obj]} after experience {experience}")
        values[i] = value
    return run.with_values(values), changed
