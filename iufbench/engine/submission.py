"""Image scores of an external method, from a CSV file: read within limits, validated against the data set.

The file has a row per experience, object and test image, with the score of the image after that experience.
The images and their labels are defined by the data set alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iufbench.reporting.measured import MAX_SCORES, introduction
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest
from iufbench.support.files import read_csv, write_csv

COLUMNS = ("experience", "object", "image", "score")
LABEL = "label"  # optional, and only compared
MAX_BYTES = 2**28  # of the unpacked file
NAMED = 3  # missing images listed in an error
Group = tuple[int, str]  # experience, object


@dataclass(frozen=True)
class Expected:
    """The scores that a submission must contain. ``experiences``: the objects of each; ``images``: object ->
    names of its test images; ``labels``: object -> bool [N], true for defective images.
    """

    experiences: Sequence[Sequence[str]]
    images: Mapping[str, Sequence[str]]
    labels: Mapping[str, np.ndarray]

    @property
    def groups(self) -> list[Group]:
        """Introduced objects after every experience, in the order of a template."""
        return [g for g in self.possible if g[0] >= self.introduced[g[1]]]

    @property
    def possible(self) -> list[Group]:
        """``groups`` and those of objects that are not introduced yet, which are optional."""
        return [(t, obj) for t in range(len(self.experiences)) for obj in self.introduced]

    @property
    def introduced(self) -> dict[str, int]:
        """Object -> the first experience that trains on it."""
        return introduction(self.experiences)


def write_template(path: Path, expected: Expected) -> Path:
    """Write a CSV file with a row for every required score, without the scores.

    Raises InputError if the file exists.
    """
    if path.exists():
        raise InputError(f"--template {path}: the file already exists; remove it or choose another name")
    rows = ((t, obj, image, None) for t, obj in expected.groups for image in expected.images[obj])
    return write_csv(path, COLUMNS, rows)


def read_submission(path: Path, expected: Expected) -> dict[Group, np.ndarray]:
    """Read the scores of a submission.

    Args:
        path: CSV file, also gzip-compressed (``.csv.gz``), with the columns ``experience`` (from 0),
            ``object``, ``image`` (path relative to the data root) and ``score`` in any order. A column
            ``label`` is optional and must agree with the data set.
        expected: The scores that it must contain.

    Returns:
        (experience, object) -> scores, float64 [N] in the order of ``expected.images``, including those of
        objects that are not introduced yet if the file has them.

    Raises:
        InputError: The file cannot be read, or a row is unknown, duplicated, missing or not a number; the
            message names the row or the images.
    """
    reader = _Reader(path, expected)
    with invalid_as_input():
        count = 0
        for rows in read_csv(path.resolve(), MAX_BYTES):
            if not count:
                reader.header(rows.pop(0))
                count = 1
            for row in rows:
                count += 1
                if row:
                    reader.add(count, row)
            if count > MAX_SCORES + 1:
                raise InputError(f"{path}: more than {MAX_SCORES:,} rows")
    if not count:
        raise InputError(f"{path}: the file is empty; --template FILE writes one to fill in")
    reader.check_complete()
    return {group: values for group, values in reader.scores.items() if not np.isnan(values).any()}


@contextmanager
def invalid_as_input():  # type: ignore[no-untyped-def]
    """Convert errors of reading the user's file to InputError."""
    try:
        yield
    except RunError as error:
        raise InputError(str(error)) from error


class _Reader:
    """Collects rows into an array per experience and object."""

    def __init__(self, path: Path, expected: Expected) -> None:
        self.path, self.expected = path, expected
        self.places = {obj: {name: k for k, name in enumerate(v)} for obj, v in expected.images.items()}
        self.scores: dict[Group, np.ndarray] = {}
        self.rows: dict[Group, np.ndarray] = {}
        self.columns: list[str] = []

    def header(self, names: Sequence[str]) -> None:
        columns = [name.strip() for name in names]
        columns[0] = columns[0].removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # written by spreadsheets
        missing = [name for name in COLUMNS if name not in columns]
        known = (*COLUMNS, LABEL)
        other = [name for name in columns if name not in known]
        wanted = ",".join(COLUMNS)
        if missing:
            shown = ",".join(columns)[:100]
            raise InputError(f"{self.path}: no column '{missing[0]}' in '{shown}' (needed: {wanted})")
        if other:
            raise InputError(
                f"{self.path}: unknown column '{other[0][:40]}'{suggest(other[0], known)} (needed: {wanted})"
            )
        if len(set(columns)) < len(columns):
            raise InputError(f"{self.path}: a column appears twice in '{','.join(columns)[:100]}'")
        self.columns = columns

    def add(self, number: int, cells: Sequence[str]) -> None:
        where = f"{self.path}, row {number}"
        if len(cells) != len(self.columns):
            raise InputError(f"{where}: {len(cells)} cells, expected {len(self.columns)}")
        row = dict(zip(self.columns, cells))
        group, place = self._place(row, where)
        value = _number(row["score"], where)
        if group not in self.scores:
            size = len(self.places[group[1]])
            self.scores[group], self.rows[group] = np.full(size, math.nan), np.zeros(size, dtype=np.int32)
        if self.rows[group][place]:
            raise InputError(
                f"{where}: {row['image']} after experience {group[0]} appears twice; first in row "
                f"{self.rows[group][place]}"
            )
        self.scores[group][place], self.rows[group][place] = value, number

    def _place(self, row: Mapping[str, str], where: str) -> tuple[Group, int]:
        steps, (experience, obj, image) = len(self.expected.experiences), (row[c] for c in COLUMNS[:3])
        if not experience.isdecimal() or len(experience) > 4 or int(experience) >= steps:
            raise InputError(
                f"{where}: experience is '{experience[:40]}', but the protocol has 0 to {steps - 1}"
            )
        if obj not in self.places:
            known = ", ".join(self.places)
            raise InputError(
                f"{where}: unknown object '{obj[:100]}'{suggest(obj, self.places)} (known: {known})"
            )
        place = self.places[obj].get(image)
        if place is None:
            close = suggest(image[:200], self.places[obj])
            raise InputError(
                f"{where}: '{image[:200]}' is not a test image of {obj}{close}; "
                "images are named relative to the data root, as in --template"
            )
        label = row.get(LABEL)
        told = str(int(self.expected.labels[obj][place]))
        if label is not None and label != told:
            raise InputError(
                f"{where}: label is '{label[:40]}', but {image} has label {told} in the data set; labels are "
                "always those of the data set"
            )
        return (int(experience), obj), place

    def check_complete(self) -> None:
        needed, missing = set(self.expected.groups), []
        for group in self.expected.possible:
            values = self.scores.get(group)
            names = self.expected.images[group[1]]
            if values is None:
                missing += [(group[0], name) for name in names] if group in needed else []
            else:
                missing += [(group[0], names[k]) for k in np.flatnonzero(np.isnan(values)).tolist()]
        if missing:
            shown = ", ".join(f"{name} after experience {t}" for t, name in missing[:NAMED])
            more = f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
            raise InputError(f"{self.path}: no score for {shown}{more}")


def _number(text: str, where: str) -> float:
    if not text.strip():
        raise InputError(f"{where}: the score is empty")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: score '{text[:40]}' is not a finite number")
    return value
