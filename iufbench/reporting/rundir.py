"""The layout of a run directory, and writing into it.

A run directory is ``<results>/runs/<dataset>/<protocol>/<strategy>/<recipe hash>/seed<k>/`` with ``run.json``
(``record.py``), ``metrics.csv`` (per object and experience), ``scores.csv.gz`` (per test image) and
``train_log.csv``. A kill at any moment leaves the old file or the new one. Reading is in ``store.py``.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from iufbench.evaluation.rows import MetricRow, ScoreRow
from iufbench.support.errors import RunError
from iufbench.support.files import read_text, write_csv
from iufbench.support.locks import NAME as LOCK
from iufbench.support.locks import locked

METRICS, SCORES, TRAIN_LOG = "metrics.csv", "scores.csv.gz", "train_log.csv"
BASELINE = "baseline.csv"
SELECTION = "selection.csv"
EPOCH_STATES = "selection"  # states of epochs, until they are evaluated (``--diagnose-selection``)
RECORDS = (METRICS, SCORES, BASELINE)
LEVELS = ("image", "pixel")
METRIC_COLUMNS = ("experience", "object", "level", "metric", "value", "seen")
SCORE_COLUMNS = ("experience", "object", "image", "label", "score")
ROUTED = "routed"  # a further column of scores where a strategy chooses the memory that judges an image
BASELINE_COLUMNS = ("experience", "object", "level", "metric", "value")


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Hold a run directory, made if need be, so that no second process writes into it meanwhile.

    Raises RunError when another process holds it.
    """
    with ExitStack() as stack:
        try:
            run.mkdir(parents=True, exist_ok=True)
            # Waits a moment: the directory may only have been looked at (``is_claimed``).
            held = stack.enter_context(locked(run, wait=0.3))
        except OSError as error:
            raise RunError(f"cannot write in {run}: {error.strerror}; check space and permissions") from error
        if not held:
            raise RunError(
                f"{run}: another process is doing this run; wait for it, or use --results DIR to do it twice"
            )
        yield


def is_claimed(run: Path) -> bool:
    """Whether a process is at work in a run directory just now."""
    if not (run / LOCK).is_file():
        return False
    try:
        with locked(run) as held:
            return not held
    except OSError:  # somebody else's, which can only be read
        return False


def record_experience(
    run: Path | str,
    experience: int,
    metrics_rows: Iterable[MetricRow | tuple[str, str, str, float, bool]],
    score_rows: Iterable[ScoreRow | tuple[Any, ...]],
) -> None:
    """Store what evaluation after ``experience`` (from 0) gave.

    Rows of this and of later experiences are replaced, so that a run resumed at this experience ends
    with the same bytes as one that was never stopped. Scores go first: where there are metrics there
    are scores.
    """
    run = Path(run)
    given = [ScoreRow(*row) for row in score_rows]
    routes = any(row.routed is not None for row in given)
    score_columns = (*SCORE_COLUMNS, ROUTED) if routes else SCORE_COLUMNS
    scores = [
        (
            experience,
            row.object,
            row.image,
            int(row.label),
            float(row.score),
            *([row.routed] if routes else []),
        )
        for row in given
    ]
    metrics = [
        (experience, obj, level, metric, float(value), int(seen))
        for obj, level, metric, value, seen in metrics_rows
    ]
    for name, columns, rows in ((SCORES, score_columns, scores), (METRICS, METRIC_COLUMNS, metrics)):
        kept = _rows_before(run / name, columns, experience)
        write_csv(run / name, columns, [*kept, *rows])


def record_baseline(run: Path | str, rows: Iterable[MetricRow]) -> None:
    """Store what the untrained learner scores: the baseline of forward transfer. Experience 0 is next."""
    values = [(0, row.object, row.level, row.metric, float(row.value)) for row in rows]
    write_csv(Path(run) / BASELINE, BASELINE_COLUMNS, values)


def record_training(run: Path | str, experience: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store the training log of one experience: one mapping per epoch (``epoch``, ``loss``, ``lr``, ...).

    Like :func:`record_experience` it replaces this and later experiences. Experiences may log different
    terms: a term that was not logged stays empty.
    """
    path = Path(run) / TRAIN_LOG
    old = [row for row in read_rows(path) if int(row["experience"]) < experience] if path.exists() else []
    new = [{"experience": experience, **row} for row in rows]
    columns = list(dict.fromkeys(key for row in [*old, *new] for key in row)) or ["experience"]
    write_csv(path, columns, [[row.get(column) for column in columns] for row in [*old, *new]])


def record_hashes(run: Path) -> dict[str, str]:
    """SHA-256 of every file of results in a run directory, by name: what a later change is noticed by."""
    there = [run / name for name in RECORDS if (run / name).exists()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def read_scores(path: Path) -> list[dict[str, str]]:
    """The rows of ``scores.csv.gz``, with or without ``routed``; RunError when damaged."""
    return read_rows(path, SCORE_COLUMNS, optional=(ROUTED,))


def _rows_before(path: Path, columns: Sequence[str], experience: int) -> list[list[str]]:
    if not path.exists():
        return []
    rows = read_rows(path, columns)
    return [list(row.values()) for row in rows if int(row["experience"]) < experience]


def read_rows(
    path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """All rows of a CSV file as text, each with a whole ``experience`` number; RunError when damaged.

    ``columns`` are expected, and those of ``optional`` may follow them.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    header = next(reader, [])
    if columns is not None:
        columns = [*columns, *(name for name in optional if name in header)]
    if "experience" not in header or (columns is not None and header != list(columns)):
        raise RunError(
            f"{path}: columns are {','.join(header) or 'missing'}, "
            f"expected {','.join(columns or ['experience'])}"
        )
    rows = []
    for row in reader:
        if len(row) != len(header):
            raise RunError(f"{path}, line {reader.line_num}: {len(row)} cells, expected {len(header)}")
        named = dict(zip(header, row))
        if not named["experience"].isdecimal():
            raise RunError(
                f"{path}, line {reader.line_num}: experience is {named['experience']!r}, not a whole number"
            )
        rows.append(named)
    return rows
