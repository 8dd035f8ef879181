"""The tables of a run directory in memory: validated on reading, and compact."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iufbench.metrics.image import grouped_image_metrics
from iufbench.reporting.rundir import (
    BASELINE_COLUMNS,
    LEVELS,
    METRIC_COLUMNS,
    ROUTED,
    SCORE_COLUMNS,
    table_columns,
    table_rows,
)
from iufbench.support.errors import RunError

# Limits for untrusted run directories, besides the sizes of their files (``rundir.LIMITS``).
MAX_VALUES = 4_000_000  # of all matrices of a run
MAX_METRICS = 500  # names of both levels
MAX_SCORES = 1_000_000
LONGEST_NAME = 200  # characters of a metric


def introduction(experiences: Sequence[Sequence[str]]) -> dict[str, int]:
    """Object -> the first experience that trains on it, in this order.

    >>> introduction([["b"], ["a"], ["b"]])
    {'b': 0, 'a': 1}
    """
    found: dict[str, int] = {}
    for number, objects in enumerate(experiences):
        for name in objects:
            found.setdefault(name, number)
    return found


@dataclass(frozen=True, eq=False)
class Measured:
    """The rows of ``metrics.csv``. Row i holds ``values[i]`` of ``keys[key[i]]``, a level and a metric, of
    object ``column[i]`` (in the order of the protocol) after experience ``experience[i]``."""

    experiences: Sequence[Sequence[str]]
    keys: tuple[tuple[str, str], ...]
    key: np.ndarray
    experience: np.ndarray
    column: np.ndarray
    values: np.ndarray

    @cached_property
    def objects(self) -> tuple[str, ...]:
        return tuple(introduction(self.experiences))

    @cached_property
    def introduced(self) -> np.ndarray:
        """int [O]: the experience each object was first trained in."""
        return np.array(list(introduction(self.experiences).values()), dtype=int)

    def matrix(self, level: str, metric: str) -> np.ndarray:
        """float64 [T, O], NaN where nothing was measured."""
        found = np.full((len(self.experiences), len(self.objects)), np.nan)
        rows = self.key == self.keys.index((level, metric))
        found[self.experience[rows], self.column[rows]] = self.values[rows]
        return found

    def frame(self) -> pd.DataFrame:
        """The rows with the columns of ``metrics.csv``."""
        levels, metrics = zip(*self.keys) if self.keys else ((), ())
        return pd.DataFrame(
            {
                "experience": self.experience,
                "object": np.array(self.objects, dtype=object)[self.column],
                "level": np.array(levels, dtype=object)[self.key],
                "metric": np.array(metrics, dtype=object)[self.key],
                "value": self.values,
                "seen": self.introduced[self.column] <= self.experience,
            }
        )


def no_metrics(experiences: Sequence[Sequence[str]]) -> Measured:
    """The metrics of a run before its first evaluation."""
    nothing = np.zeros(0, dtype=int)
    return Measured(experiences, (), nothing, nothing, nothing, np.zeros(0))


def read_metrics(path: Path, experiences: Sequence[Sequence[str]]) -> Measured:
    """Read ``metrics.csv`` of a protocol with these experiences. Raises RunError with the row that is
    invalid.
    """
    objects = {obj: (i, t) for i, (obj, t) in enumerate(introduction(experiences).items())}
    keys: dict[tuple[str, str], int] = {}
    steps, width = len(experiences), len(objects)
    key, experience, column, values = array("i"), array("i"), array("i"), array("d")
    chunks = table_rows(path, METRIC_COLUMNS)
    next(chunks)
    rows = itertools.chain.from_iterable(chunks)
    for number, (step, obj, level, metric, text, seen) in enumerate(rows, start=2):
        t = int(step)
        place = objects.get(obj)
        problem = None
        try:
            value = float(text) if text else math.nan
        except ValueError:
            value, problem = math.nan, f"value {text[:40]!r} is not a number"
        if problem is not None:
            pass
        elif t >= steps:
            problem = f"experience {step} of a protocol with {steps}"
        elif place is None:
            problem = f"object {obj[:100]!r} is not in the protocol"
        elif level not in LEVELS:
            problem = f"level {level[:40]!r} is neither image nor pixel"
        elif not metric.isprintable() or len(metric) > LONGEST_NAME:
            problem = f"metric {metric[:40]!r} is not a valid name"
        elif text and not 0 <= value <= 1:
            problem = f"value {text[:40]} is outside [0, 1]"
        elif seen != ("1" if place[1] <= t else "0"):
            problem = f"seen is {seen[:40]!r} but {obj} is introduced by experience {place[1]}"
        elif (level, metric) not in keys and (len(keys) + 1) * steps * width > MAX_VALUES:
            problem = f"more than {MAX_VALUES:,} values"
        elif len(keys) >= MAX_METRICS and (level, metric) not in keys:
            problem = f"more than {MAX_METRICS} metrics"
        if problem is not None or place is None:
            raise RunError(f"{path}, row {number}: {problem}")
        key.append(keys.setdefault((level, metric), len(keys)))
        experience.append(t)
        column.append(place[0])
        values.append(value)
    found = Measured(experiences, tuple(keys), *map(np.array, (key, experience, column, values)))
    cells = (found.key.astype(np.int64) * steps + found.experience) * width + found.column
    first = np.zeros(len(cells), dtype=bool)
    first[np.unique(cells, return_index=True)[1]] = True
    for i in np.flatnonzero(~first)[:1]:
        level, metric = found.keys[key[i]]
        what = f"{metric} of {found.objects[column[i]]} after experience {experience[i]}"
        raise RunError(f"{path}, row {i + 2}: {what} appears twice")
    return found


@dataclass(frozen=True, eq=False)
class Scores:
    """The rows of ``scores.csv.gz``; ``group[i]``: which of ``groups`` (experience, object) row i is of.

    ``texts`` are the columns image and, where recorded, routed; empty unless asked for.
    """

    groups: tuple[tuple[int, str], ...]
    group: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    texts: dict[str, list[str]]

    def by_group(self) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
        """Yield experience, object, labels bool [n] (true is defective) and scores [n] of every group."""
        order = np.argsort(self.group, kind="stable")
        labels, scores, start = self.labels[order] == 1, self.scores[order], 0
        for (experience, obj), images in zip(self.groups, np.bincount(self.group).tolist()):
            yield experience, obj, labels[start : start + images], scores[start : start + images]
            start += images

    def image_metrics(self) -> Iterator[tuple[int, str, dict[str, float]]]:
        """Yield experience, object and image metrics (name -> value) of every group."""
        found = grouped_image_metrics(self.labels == 1, self.scores, self.group, len(self.groups))
        for (experience, obj), *values in zip(self.groups, *found.values()):
            yield experience, obj, dict(zip(found, values))

    def frame(self) -> pd.DataFrame:
        """The rows with the columns of ``scores.csv.gz``."""
        experiences, objects = zip(*self.groups) if self.groups else ((), ())
        columns: dict[str, Any] = {
            "experience": np.array(experiences, dtype=int)[self.group],
            "object": np.array(objects, dtype=object)[self.group],
            "image": _texts(self.texts["image"]),
            "label": self.labels.astype(int),
            "score": self.scores,
        }
        routed = {name: _texts(found) for name, found in self.texts.items() if name == ROUTED}
        return pd.DataFrame({**columns, **routed})


def _texts(values: Sequence[str]) -> pd.Series:
    """A column of Python's own strings: names of files need not be valid UTF-8, as pandas' strings are."""
    return pd.Series(list(values), dtype=object)


class _Numbered(dict[tuple[str, str], int]):
    """Assigns consecutive numbers to new keys."""

    def __missing__(self, key: tuple[str, str]) -> int:
        self[key] = len(self)
        return self[key]


def read_scores(path: Path, texts: bool = True) -> Scores:
    """Read ``scores.csv.gz``; without ``texts`` in 10 % of the memory. Raises RunError if corrupted."""
    chunks = table_columns(path, SCORE_COLUMNS, (ROUTED,))
    header = [name for (name,) in next(chunks)]
    groups: dict[tuple[str, str], int] = _Numbered()
    group, labels, scores = array("i"), array("b"), array("d")
    kept: dict[str, list[str]] = {name: [] for name in header if texts and name in ("image", ROUTED)}
    for chunk in chunks:
        columns = dict(zip(header, chunk))
        try:
            group.extend(map(groups.__getitem__, zip(columns["experience"], columns["object"])))
            known = {text: int(text) for text in set(columns["label"])}
            labels.extend(map(known.__getitem__, columns["label"]))
            scores.extend(map(float, columns["score"]))  # Python's parser: the exact float64 written
        except (ValueError, OverflowError) as error:
            raise RunError(f"{path}, near row {len(scores) + 2}: {str(error)[:100]}") from error
        for name, cells in kept.items():
            cells.extend(columns[name])
        if len(scores) > MAX_SCORES:
            raise RunError(f"cannot read {path}: more than {MAX_SCORES:,} scores")
    values, kinds = np.array(scores, dtype=float), np.array(labels)
    if not np.isfinite(values).all() or not np.isin(kinds, (0, 1)).all():
        raise RunError(f"{path}: scores must be finite and labels 0 or 1")
    named = tuple((int(experience), obj) for experience, obj in groups)
    return Scores(named, np.array(group), kinds, values, kept)


def read_baseline(path: Path, objects: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    """Read ``baseline.csv``: (level, metric) -> object -> value. Raises RunError with the row that is
    invalid.
    """
    chunks, known = table_rows(path, BASELINE_COLUMNS), set(objects)
    next(chunks)
    found: dict[tuple[str, str], dict[str, float]] = {}
    rows = itertools.chain.from_iterable(chunks)
    for number, (_, obj, level, metric, text) in enumerate(rows, start=2):
        values = found.setdefault((level, metric), {})
        if obj not in known or obj in values or level not in LEVELS:
            what = f"{level[:40]} {metric[:40]} of {obj[:100]}"
            raise RunError(f"{path}, row {number}: {what} appears twice or is not in the protocol")
        (values[obj],) = _floats([text], f"{path}, row {number}")
        if not (math.isnan(values[obj]) or 0 <= values[obj] <= 1):
            raise RunError(f"{path}, row {number}: value {text[:40]} is outside [0, 1]")
    return found


def read_log(path: Path) -> dict[str, array[float]]:
    """Read ``train_log.csv``: column -> values, NaN for empty cells. Raises RunError if it is corrupted."""
    chunks = table_columns(path)
    header = [name for (name,) in next(chunks)]
    if len(set(header)) < len(header) or not all(map(str.isprintable, header)):
        raise RunError(f"{path}: a column appears twice, or its name cannot be printed")
    columns = {name: array("d") for name in header}
    for chunk in chunks:
        for name, texts in zip(header, chunk):
            columns[name].extend(_floats(texts, f"{path}: column {name[:40]}"))
    return columns


def _floats(texts: Sequence[str], where: str) -> list[float]:
    try:
        return [float(text or "nan") for text in texts]  # Python's own parser: the exact float64 written
    except ValueError as error:
        raise RunError(f"{where}: {str(error)[:100]}") from error
