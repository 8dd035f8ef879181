"""Run directories in and out: the one door to stored results, without torch and without Avalanche.

Everything that reads results starts from :func:`load_run` or :func:`find_runs`; they check what they
read, so that a damaged directory is named with its reason and never becomes a number in a table.
"""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from iufbench.evaluation.rows import MetricRow, ScoreRow
from iufbench.reporting.record import INFO, RunRecord, read_record, run_id, run_path, write_record
from iufbench.reporting.rundir import (
    BASELINE,
    BASELINE_COLUMNS,
    LEVELS,
    METRIC_COLUMNS,
    METRICS,
    SCORE_COLUMNS,
    SCORES,
    TRAIN_LOG,
    read_rows,
    read_scores,
    record_baseline,
    record_experience,
    record_training,
)
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import write_csv, write_json

__all__ = [
    "Matrix",
    "MetricRow",
    "Run",
    "ScoreRow",
    "find_runs",
    "load_run",
    "record_baseline",
    "record_experience",
    "record_training",
    "run_id",
    "run_path",
    "write_csv",
    "write_json",
    "write_record",
]


class Matrix(NamedTuple):
    """R of one metric: ``values`` float64 [T, O] in [0, 1], NaN where nothing was measured or defined.

    Row t is the evaluation after experience t; ``objects`` are the columns in the order of the protocol;
    ``introduced`` int [O] is the experience each object was first trained in.
    """

    values: np.ndarray
    objects: tuple[str, ...]
    introduced: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """bool [T, O]: the object had been trained on by then."""
        return np.arange(len(self.values))[:, None] >= self.introduced[None, :]

    @property
    def complete(self) -> bool:
        """Whether every seen object has a value after every experience."""
        return not np.isnan(self.values[self.seen]).any()


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory, read and checked. ``record`` is ``run.json``, ``metrics`` the long table."""

    path: Path
    record: RunRecord
    metrics: pd.DataFrame = field(repr=False)

    @cached_property
    def info(self) -> dict[str, Any]:
        """``record`` as plain values, as in ``run.json``."""
        return self.record.as_dict()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def complete(self) -> bool:
        return self.record.complete

    @property
    def synthetic(self) -> bool:
        return self.record.dataset.synthetic

    @property
    def score_rule(self) -> str:
        """How maps became image scores (``metrics.image.image_score``); older runs had no choice."""
        return str(self.record.recipe.get("score", "pooled_max"))

    @property
    def experiences(self) -> list[list[str]]:
        return self.record.protocol.experiences

    @cached_property
    def objects(self) -> tuple[str, ...]:
        return tuple(obj for experience in self.experiences for obj in experience)

    def names(self, level: str) -> list[str]:
        """The metrics this run has at one level, in the order they were recorded; empty without masks."""
        return list(dict.fromkeys(self.metrics.loc[self.metrics["level"] == level, "metric"]))

    def matrix(self, level: str, metric: str = "auroc") -> Matrix:
        """R of one metric. Raises InputError, with suggestions, when the run does not have it."""
        names = self.names(level)
        if metric not in names:
            if not names:
                raise InputError(f"{self.id} has no {level} metrics")
            close = difflib.get_close_matches(metric, names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
            raise InputError(f"{self.id} has no {level} metric {metric!r}: {hint}")
        rows = self.metrics[(self.metrics["level"] == level) & (self.metrics["metric"] == metric)]
        column = {obj: i for i, obj in enumerate(self.objects)}
        values = np.full((len(self.experiences), len(self.objects)), np.nan)
        values[rows["experience"], [column[obj] for obj in rows["object"]]] = rows["value"]
        introduced = [t for t, objects in enumerate(self.experiences) for _ in objects]
        return Matrix(values, self.objects, np.array(introduced))

    def baseline(self, level: str, metric: str = "auroc") -> np.ndarray | None:
        """float64 [O]: the metric of every object before any training; None when it was not measured."""
        path = self.path / BASELINE
        if not path.exists():
            return None
        found = {
            row["object"]: row["value"]
            for row in read_rows(path, BASELINE_COLUMNS)
            if (row["level"], row["metric"]) == (level, metric)
        }
        texts = [found.get(name) or "nan" for name in self.objects]
        return np.array(_numbers(texts, float, path, "value"))

    def scores(self) -> pd.DataFrame:
        """Every test image's score: experience, object, image, label, score, and ``routed`` (the object whose
        memory judged the image) of a strategy that chooses between memories. RunError when damaged."""
        path = self.path / SCORES
        rows = read_scores(path)
        names = list(rows[0]) if rows else SCORE_COLUMNS
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in names}
        for name, kind in (("experience", int), ("label", int), ("score", float)):
            columns[name] = _numbers(columns[name], kind, path, name)
        if not np.isfinite(columns["score"]).all() or not set(columns["label"]) <= {0, 1}:
            raise RunError(f"{path}: scores must be finite and labels 0 or 1")
        return pd.DataFrame(columns)

    def train_log(self) -> pd.DataFrame:
        """The training log: experience, epoch, loss, ... as floats, NaN where a term was not logged."""
        path = self.path / TRAIN_LOG
        if not path.exists():
            return pd.DataFrame({"experience": [], "epoch": [], "loss": []})
        rows = read_rows(path)
        names = list(rows[0]) if rows else ["experience"]
        return pd.DataFrame(
            {name: _numbers([row[name] or "nan" for row in rows], float, path, name) for name in names}
        )


def load_run(path: Path | str) -> Run:
    """Read a run directory and check that it is whole.

    Raises InputError when it is none, RunError saying what is damaged and where.
    """
    path = Path(path)
    if not (path / INFO).is_file():
        raise InputError(f"{path} is not a run directory (no {INFO}); see: iufbench list runs")
    record = read_record(path)
    if not (path / METRICS).exists() and not record.complete:
        metrics = pd.DataFrame({name: [] for name in METRIC_COLUMNS})
    else:
        metrics = _read_metrics(path / METRICS, record.protocol.experiences)
    return Run(path, record, metrics)


def _numbers(texts: list[str], kind: type, path: Path, column: str) -> list[Any]:
    try:
        return [kind(text) for text in texts]  # Python's own parser: the exact float64 that was written
    except ValueError as error:
        raise RunError(f"{path}: column {column}: {error}") from error


def _read_metrics(path: Path, protocol: list[list[str]]) -> pd.DataFrame:
    introduced = {o: t for t, objects in enumerate(protocol) for o in objects}
    experiences = len(protocol)
    columns: dict[str, list[Any]] = {name: [] for name in METRIC_COLUMNS}
    known: set[tuple[Any, ...]] = set()
    for number, row in enumerate(read_rows(path, METRIC_COLUMNS), start=2):
        experience, obj, level, metric, text, seen = row.values()
        key = (int(experience), obj, level, metric)
        try:
            value = float(text) if text else math.nan
        except ValueError:
            raise RunError(f"{path}, line {number}: value {text!r} is not a number") from None
        problem = None
        if key[0] >= experiences:
            problem = f"experience {experience} of a protocol with {experiences}"
        elif obj not in introduced:
            problem = f"object {obj!r} is not in the protocol"
        elif level not in LEVELS:
            problem = f"level {level!r} is neither image nor pixel"
        elif text and not 0 <= value <= 1:
            problem = f"value {text} is outside [0, 1]"
        elif seen != str(int(introduced[obj] <= key[0])):
            problem = f"seen is {seen!r} but {obj} is introduced by experience {introduced[obj]}"
        elif key in known:
            problem = f"{metric} of {obj} after experience {experience} appears twice"
        if problem:
            raise RunError(f"{path}, line {number}: {problem}")
        known.add(key)
        for name, value_ in zip(METRIC_COLUMNS, (*key, value, seen == "1")):
            columns[name].append(value_)
    return pd.DataFrame(columns)


def find_runs(
    results: Path | str, include_incomplete: bool = False
) -> tuple[list[Run], list[tuple[Path, str]]]:
    """All runs below ``<results>/runs``, sorted by id, and what is damaged with the reason.

    Runs that are not complete are left out unless asked for. A copy of a run with the same content
    counts once. Raises InputError when two directories claim the same identity with different content.
    """
    found: dict[str, Run] = {}
    damaged: list[tuple[Path, str]] = []
    for folder, folders, files in os.walk(Path(results) / "runs"):
        path = Path(folder)
        folders.sort()
        if INFO not in files:
            begun = folders or any(not name.startswith(".") for name in files)
            if path.name.startswith("seed") and begun:  # the first file of a run is its run.json
                damaged.append((path, f"no {INFO}"))
            continue
        folders.clear()
        try:
            run = load_run(path)
        except (RunError, InputError) as error:
            damaged.append((path, str(error)))
            continue
        if run.id in found and not _same_content(found[run.id].path, path):
            raise InputError(
                f"{found[run.id].path} and {path} both claim to be {run.id} but differ: remove or move one"
            )
        found.setdefault(run.id, run)
    runs = [run for _, run in sorted(found.items()) if include_incomplete or run.complete]
    return runs, damaged


def _same_content(one: Path, other: Path) -> bool:
    def content(run: Path) -> list[bytes | None]:
        return [p.read_bytes() if p.exists() else None for p in (run / INFO, run / METRICS, run / SCORES)]

    return content(one) == content(other)
