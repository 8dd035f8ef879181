"""Reading run directories: the single entry point to stored results, without torch and Avalanche.

All code that reads results uses :func:`load_run` or :func:`find_runs`, which validate what they read: a
corrupted directory is reported with its reason and never becomes a number in a table.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from iufbench.evaluation.rows import MetricRow, ScoreRow
from iufbench.metrics.continual import fwt
from iufbench.metrics.summaries import MEANS, summarise
from iufbench.metrics.values import falls
from iufbench.reporting.latency import Latency, read_latency
from iufbench.reporting.measured import (
    Measured,
    Scores,
    no_metrics,
    read_baseline,
    read_log,
    read_metrics,
    read_scores,
)
from iufbench.reporting.record import INFO, RunRecord, read_record, run_id, run_path, write_record
from iufbench.reporting.rundir import (
    BASELINE,
    LEVELS,
    METRICS,
    SCORES,
    TRAIN_LOG,
    file_hashes,
    record_baseline,
    record_experience,
    record_training,
)
from iufbench.reporting.thresholds import image_values_at_thresholds
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import PathOrText, write_csv, write_json

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
    ``introduced`` int [O] is the experience in which each object was first trained.
    """

    values: np.ndarray
    objects: tuple[str, ...]
    introduced: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """bool [T, O]: whether the object had been trained on by then."""
        return np.arange(len(self.values))[:, None] >= self.introduced[None, :]

    @property
    def frame(self) -> pd.DataFrame:
        """``values`` with the objects as columns and the experiences as rows."""
        rows = pd.RangeIndex(len(self.values), name="after experience")
        return pd.DataFrame(self.values, index=rows, columns=list(self.objects))

    @property
    def complete(self) -> bool:
        """Whether every seen object has a value after every experience."""
        return not np.isnan(self.values[self.seen]).any()


@dataclass(frozen=True, eq=False)
class Run:
    """A validated run directory. ``record`` is ``run.json``, ``measured`` its metrics."""

    path: Path
    record: RunRecord
    measured: Measured = field(repr=False)
    _matrices: dict[tuple[str, str], Matrix] = field(default_factory=dict, repr=False)
    _summaries: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The long table: experience, object, level, metric, value (NaN: undefined), seen."""
        return self.measured.frame()

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
        """How maps became image scores (``metrics.image.image_score``); older runs had a fixed rule."""
        return str(self.record.recipe.get("score", "pooled_max"))

    @property
    def experiences(self) -> list[list[str]]:
        return self.record.protocol.experiences

    @property
    def objects(self) -> tuple[str, ...]:
        """In the order of the protocol."""
        return self.measured.objects

    @property
    def figures(self) -> list[Path]:
        """The pictures in the run directory: matrix of each level, curves."""
        return sorted(self.path.glob("*.png"))

    def _repr_html_(self) -> str:
        """What a notebook displays: the AUROC matrix and its summaries, at each level."""
        record = self.record
        title = f"{record.protocol.label} | {record.label} | seed {self.seed} | {record.status}"
        parts = [f"<p><strong>{escape(title + ' | SYNTHETIC data' * self.synthetic)}</strong></p>"]
        for level, found in self.summaries().items():
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in found.items() if value == value)
            table = self.matrix(level).frame.to_html(float_format="{:.3f}".format, na_rep="")
            parts.append(f"<p>{level} AUROC</p>{table}<p>{escape(numbers)}</p>")
        return "\n".join([*parts, f"<p><code>{escape(str(self.path))}</code></p>"])

    def names(self, level: str) -> list[str]:
        """The metrics of this run at one level, in the order in which they were recorded; empty without
        masks.
        """
        return [metric for found, metric in self.measured.keys if found == level]

    def matrix(self, level: str, metric: str = "auroc") -> Matrix:
        """R of one metric. Raises InputError with suggestions if the run does not have it."""
        if (level, metric) not in self._matrices:
            names = self.names(level)
            if metric not in names:
                if not names:
                    raise InputError(f"{self.id} has no {level} metrics")
                close = difflib.get_close_matches(metric, names, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
                raise InputError(f"{self.id} has no {level} metric {metric!r}: {hint}")
            values = self.measured.matrix(level, metric)
            values.flags.writeable = False
            self._matrices[level, metric] = Matrix(values, self.objects, self.measured.introduced)
        return self._matrices[level, metric]

    def summary(self, level: str, metric: str = "auroc") -> dict[str, float]:
        """Continual summaries of one metric.

        Returns:
            Summary name (acc, acc_final, fm, ...) -> value; empty if the run lacks the metric. ``fwt`` is
            included if the untrained learner was measured (``--eval-unseen``). Of a metric of which lower is
            better: means only.
        """
        if metric not in self.names(level):
            return {}
        if (level, metric) not in self._summaries:
            matrix = self.matrix(level, metric)
            found = summarise(matrix.values, matrix.introduced)
            baseline = self.baseline(level, metric)
            if baseline is not None:
                found["fwt"] = fwt(matrix.values, matrix.introduced, baseline)
            self._summaries[level, metric] = {s: found[s] for s in MEANS} if falls(metric) else found
        return dict(self._summaries[level, metric])

    def summaries(self, metric: str = "auroc") -> dict[str, dict[str, float]]:
        """Level -> ``summary``; levels without data are absent."""
        found = {level: self.summary(level, metric) for level in LEVELS}
        return {level: values for level, values in found.items() if values}

    @cached_property
    def _baselines(self) -> dict[tuple[str, str], dict[str, float]]:
        path = self.path / BASELINE
        return read_baseline(path, self.objects) if os.path.lexists(path) else {}

    def baseline(self, level: str, metric: str = "auroc") -> np.ndarray | None:
        """float64 [O]: the metric of every object before any training; None if it was not measured."""
        if not self._baselines:
            return None
        found = self._baselines.get((level, metric), {})
        return np.array([found.get(name, np.nan) for name in self.objects])

    def image_metrics(self) -> Iterator[tuple[int, str, dict[str, float]]]:
        """Recompute experience, object and image metrics from ``scores.csv.gz``.

        In a run with thresholds, those at thresholds are included. Raises RunError if the scores are missing
        or corrupted, or no metric can be computed from them.
        """
        scores = self.image_scores
        rule = self.record.request.get("threshold")
        added = {} if rule is None else image_values_at_thresholds(self.path, rule, scores)
        for experience, obj, values in scores.image_metrics():
            yield experience, obj, {**values, **added.get((experience, obj), {})}

    def scores(self) -> pd.DataFrame:
        """The score of every test image: experience, object, image, label, score, and ``routed`` (the object
        whose memory scored the image) if the strategy selects memories. Raises RunError if corrupted.
        """
        return self._read_scores(texts=True).frame()

    @cached_property
    def image_scores(self) -> Scores:
        """Label and score of every test image, without names, kept at 13 bytes an image.

        Raises RunError when they are corrupted.
        """
        return self._read_scores(texts=False)

    @cached_property
    def latency(self) -> Latency | None:
        """The time per image (``iufbench bench --latency``); None if it was not measured.

        Raises RunError if ``latency.json`` is corrupted.
        """
        return read_latency(self.path)

    def predict(
        self,
        images: PathOrText | Iterable[PathOrText],
        object: str = "auto",
        out: PathOrText | None = None,
        device: str = "auto",
        threshold: str | None = None,
    ) -> pd.DataFrame:
        """Score new images with the last checkpoint: ``iufbench predict``.

        Args:
            images: Files, folders or patterns (``today/*.png``).
            object: The object in the images; ``auto``: unknown.
            out: New folder for tables, anomaly maps and overlays.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            threshold: ``frozen`` (right after the object was learnt) or ``own`` (after the last experience);
                None: frozen where the run has thresholds.

        Returns:
            A row per image: image, object, score, threshold, decision.

        Raises:
            InputError: The run is not finished, an image is missing or corrupted, the object is unknown, or
                ``out`` exists.
            RunError: A checkpoint is missing or corrupted, or the card or weights have changed.
        """
        # The engine is in a higher layer, so it is imported by name.
        engine = importlib.import_module("iufbench.engine.predict")
        rows = [
            prediction.row()
            for prediction in engine.predict(self, images, object, out, device, threshold=threshold)
        ]
        return pd.DataFrame(rows, columns=list(rows[0]))

    def _read_scores(self, texts: bool) -> Scores:
        path, known = self.path / SCORES, set(self.objects)
        found = read_scores(path, texts)
        for t, obj in found.groups:
            if t >= len(self.experiences) or obj not in known:
                raise RunError(f"{path}: object {obj[:100]!r} after experience {t} is not in the protocol")
        return found

    def with_values(self, values: np.ndarray) -> Run:
        """A copy of the run with other metric values, float64 [n], in the order of ``metrics``."""
        other = Run(self.path, self.record, replace(self.measured, values=values))
        if "image_scores" in self.__dict__:
            other.__dict__["image_scores"] = self.image_scores  # need not be read again
        return other

    def train_log(self) -> pd.DataFrame:
        """The training log: experience, epoch, loss, ... as floats, NaN for terms that were not logged."""
        path = self.path / TRAIN_LOG
        if not os.path.lexists(path):
            return pd.DataFrame({"experience": [], "epoch": [], "loss": []})
        return pd.DataFrame(read_log(path))


def load_run(path: PathOrText) -> Run:
    """Read a run directory and validate it.

    Raises InputError if it is not a run directory, RunError if it is corrupted.
    """
    path = Path(path)
    if not os.path.lexists(path / INFO):
        raise InputError(f"{path} is not a run directory (no {INFO}); see: iufbench list runs")
    record = read_record(path)
    experiences = record.protocol.experiences
    if record.complete or os.path.lexists(path / METRICS):
        measured = read_metrics(path / METRICS, experiences)
    else:
        measured = no_metrics(experiences)
    if record.complete:
        missing = sorted(set(range(len(experiences))) - set(measured.experience.tolist()))
        if missing:
            raise RunError(
                f"{path / METRICS} has no rows of experience {missing[0] + 1} of {len(experiences)}, "
                "although the run is complete"
            )
    run = Run(path, record, measured)
    _ = run.latency  # raises now if the file is corrupted
    return run


def find_runs(
    results: Path | str, include_incomplete: bool = False
) -> tuple[list[Run], list[tuple[Path, str]]]:
    """Find all runs below ``<results>/runs``, sorted by id, and the skipped directories with reasons.

    Incomplete runs are skipped by default. A copy of a run with the same content counts once; directories
    with the same id but different content are all skipped.
    """
    found: dict[str, list[Run]] = {}
    skipped: list[tuple[Path, str]] = []
    for folder, folders, files in os.walk(Path(results) / "runs"):
        path = Path(folder)
        folders.sort()
        if INFO not in (*files, *folders):
            begun = folders or any(not name.startswith(".") for name in files)
            if path.name.startswith("seed") and begun:  # the first file of a run is its run.json
                skipped.append((path, f"no {INFO}"))
            links = [path / name for name in folders if (path / name).is_symlink()]
            skipped += [(link, "it is a link to a folder") for link in links]
            continue
        folders.clear()
        try:
            run = load_run(path)
        except (RunError, InputError) as error:
            skipped.append((path, str(error)))
            continue
        found.setdefault(run.id, []).append(run)
    runs = []
    for name, (run, *others) in sorted(found.items()):
        if all(_same_content(run.path, other.path) for other in others):
            if include_incomplete or run.complete:
                runs.append(run)
            continue
        paths = [other.path for other in (run, *others)]
        for path in paths:
            rivals = " and ".join(str(p) for p in paths if p != path)
            skipped.append((path, f"{rivals} also claims to be {name} but differs: remove or move one"))
    return runs, skipped


def _same_content(one: Path, other: Path) -> bool:
    try:
        return file_hashes(one, (INFO, METRICS, SCORES)) == file_hashes(other, (INFO, METRICS, SCORES))
    except RunError:  # a link or no regular file
        return False
