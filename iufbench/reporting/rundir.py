"""The layout of a run directory, and writing into it.

A run directory is ``<results>/runs/<dataset>/<protocol>/<strategy>/<recipe hash>/seed<k>/`` with ``run.json``
(``record.py``), ``metrics.csv`` (per object and experience), ``scores.csv.gz`` (per test image),
``calibration.csv.gz`` (per calibration image, in a run with thresholds) and ``train_log.csv``. A kill at any
moment leaves the old file or the new one. Reading is in ``store.py``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from iufbench.evaluation.rows import CalibrationRow, MetricRow, ScoreRow
from iufbench.support.errors import RunError
from iufbench.support.files import csv_parts, file_sha256, write_csv
from iufbench.support.locks import NAME as LOCK
from iufbench.support.locks import locked

METRICS, SCORES, TRAIN_LOG = "metrics.csv", "scores.csv.gz", "train_log.csv"
BASELINE = "baseline.csv"
SELECTION = "selection.csv"
EPOCH_STATES = "selection"  # states of epochs, until they are evaluated (``--diagnose-selection``)
CALIBRATION = "calibration.csv.gz"
RECORDS = (METRICS, SCORES, BASELINE, CALIBRATION)
# Maximum size of an unpacked table: bounds time and memory for untrusted directories.
LIMITS = {
    METRICS: 2**23,
    SCORES: 2**28,
    TRAIN_LOG: 2**23,
    BASELINE: 2**20,
    SELECTION: 2**24,
    CALIBRATION: 2**28,
}
LEVELS = ("image", "pixel")
DIGITS = 9  # of an experience number
METRIC_COLUMNS = ("experience", "object", "level", "metric", "value", "seen")
SCORE_COLUMNS = ("experience", "object", "image", "label", "score")
ROUTED = "routed"  # additional column of scores if a strategy selects the memory that scores an image
CALIBRATION_COLUMNS = ("experience", *CalibrationRow._fields)
BASELINE_COLUMNS = ("experience", "object", "level", "metric", "value")


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Lock a run directory, creating it if necessary, so that no second process writes into it.

    Raises RunError if another process holds the lock.
    """
    with ExitStack() as stack:
        try:
            run.mkdir(parents=True, exist_ok=True)
            # Waits a moment: ``is_claimed`` may hold the lock briefly.
            held = stack.enter_context(locked(run, wait=0.3))
        except OSError as error:
            raise RunError(f"cannot write in {run}: {error.strerror}; check space and permissions") from error
        if not held:
            raise RunError(
                f"{run}: another process is executing this run; wait for it, or use another --results DIR"
            )
        yield


def is_claimed(run: Path) -> bool:
    """Whether a process is working in a run directory."""
    if not (run / LOCK).is_file():
        return False
    try:
        with locked(run) as held:
            return not held
    except OSError:  # a read-only directory
        return False


def record_experience(
    run: Path | str,
    experience: int,
    metrics_rows: Iterable[MetricRow | tuple[str, str, str, float, bool]],
    score_rows: Iterable[ScoreRow | tuple[Any, ...]],
) -> None:
    """Store the results of the evaluation after ``experience`` (from 0).

    Rows of this and of later experiences are replaced, so that a resumed run ends with the same bytes as an
    uninterrupted one. Scores are written first: metrics never exist without scores.
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


def record_calibration(run: Path | str, experience: int, rows: Iterable[CalibrationRow]) -> None:
    """Store the scores of the calibration images after ``experience`` (from 0), like
    :func:`record_experience`; must be called before it.
    """
    path = Path(run) / CALIBRATION
    kept = _rows_before(path, CALIBRATION_COLUMNS, experience)
    write_csv(path, CALIBRATION_COLUMNS, [*kept, *((experience, *row) for row in rows)])


def record_baseline(run: Path | str, rows: Iterable[MetricRow]) -> None:
    """Store the scores of the untrained learner, the baseline of forward transfer; experience 0 is next."""
    values = [(0, row.object, row.level, row.metric, float(row.value)) for row in rows]
    write_csv(Path(run) / BASELINE, BASELINE_COLUMNS, values)


def record_training(run: Path | str, experience: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store the training log of one experience: one mapping per epoch (``epoch``, ``loss``, ``lr``, ...).

    Like :func:`record_experience` it replaces this and later experiences. Experiences may log different
    terms; the others remain empty.
    """
    path = Path(run) / TRAIN_LOG
    old = [row for row in read_rows(path) if int(row["experience"]) < experience] if path.exists() else []
    new = [{"experience": experience, **row} for row in rows]
    columns = list(dict.fromkeys(key for row in [*old, *new] for key in row)) or ["experience"]
    write_csv(path, columns, [[row.get(column) for column in columns] for row in [*old, *new]])


def record_hashes(run: Path) -> dict[str, str]:
    """SHA-256 of every result file in a run directory, by name, to detect later changes."""
    return file_hashes(run, RECORDS)


def file_hashes(run: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the files that exist, by name. Raises RunError for anything that is not a regular file."""
    return {name: file_sha256(run / name) for name in names if os.path.lexists(run / name)}


def experience_digests(path: Path, experiences: int) -> list[str]:
    """SHA-256 of the rows of each of the first ``experiences`` experiences of a CSV file.

    Empty cells are ignored, so that columns added by later experiences change nothing; a missing file has no
    rows. Raises RunError if the file is corrupted.
    """
    digests = [hashlib.sha256() for _ in range(experiences)]
    if os.path.lexists(path):
        parts = table_rows(path)
        (header,) = next(parts)
        place, names = header.index("experience"), str(header)
        for row in (row for rows in parts for row in rows):
            number = int(row[place])
            if number >= experiences:
                continue
            if all(row):
                text = f"{names}{row}"
            else:
                filled = [(name, cell) for name, cell in zip(header, row) if cell]
                text = f"{[name for name, _ in filled]}{[cell for _, cell in filled]}"
            digests[number].update(text.encode("utf-8", "surrogateescape"))
    return [digest.hexdigest() for digest in digests]


def _rows_before(path: Path, columns: Sequence[str], experience: int) -> list[list[str]]:
    if not path.exists():
        return []
    rows = read_rows(path, columns)
    return [list(row.values()) for row in rows if int(row["experience"]) < experience]


def read_rows(
    path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Read all rows of a CSV file as text, each with an ``experience`` number.

    ``columns`` are required, and may be followed by those of ``optional``. Raises RunError if the file is
    corrupted.
    """
    (header,), *chunks = table_rows(path, columns, optional)
    return [dict(zip(header, row)) for rows in chunks for row in rows]


def table_rows(
    path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> Iterator[list[list[str]]]:
    """Yield the header, then the rows in chunks of some thousand, validated as by :func:`read_rows`."""
    return ([*map(list, zip(*found))] for found in table_columns(path, columns, optional))


def table_columns(
    path: Path, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> Iterator[list[Sequence[str]]]:
    """Yield the columns of the header, then those of some thousand rows at a time.

    Files may be as long as ``LIMITS`` allows. Arguments and errors are those of :func:`read_rows`; rows are
    counted from 1, the header, in messages.
    """
    parts = csv_parts(path, LIMITS[path.name])
    header = next((part.rows()[0] for part in parts), [])
    _check_header(path, header, columns, optional)
    yield [[name] for name in header]
    place, count = header.index("experience"), 1
    for part in parts:
        found = part.columns(len(header))
        if found is None or not all(map(_is_experience, set(found[place]))):
            _refuse(path, part.rows(), header, count + 1)
        count += len(found[0])
        yield found


def _is_experience(text: str) -> bool:
    plain = text.isascii() and text.isdecimal() and len(text) <= DIGITS
    return plain and (text == "0" or text[0] != "0")  # "01" would be an experience beside "1"


def _refuse(path: Path, rows: Iterable[Sequence[str]], header: Sequence[str], start: int) -> NoReturn:
    """Raise RunError with the first invalid row of some that are counted from ``start``."""
    place = header.index("experience")
    for number, row in enumerate(rows, start):
        if len(row) != len(header):
            raise RunError(f"{path}, row {number}: {len(row)} cells, expected {len(header)}")
        if not _is_experience(row[place]):
            shown = repr(row[place][:40])
            raise RunError(f"{path}, row {number}: experience is {shown}, not a whole number")
    raise AssertionError("all rows are valid")


def _check_header(
    path: Path, header: list[str], columns: Sequence[str] | None, optional: Sequence[str]
) -> None:
    if columns is not None:
        columns = [*columns, *(name for name in optional if name in header)]
    if "experience" not in header or (columns is not None and header != list(columns)):
        shown = ",".join(header)[:200] or "missing"
        raise RunError(f"{path}: columns are {shown}, expected {','.join(columns or ['experience'])}")
