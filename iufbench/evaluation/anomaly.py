"""Avalanche metrics for anomaly detection: per object, means over the stream, and the forgetting matrix."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor

from iufbench.evaluation import on_device
from iufbench.evaluation.rows import MetricRow
from iufbench.evaluation.truth import EvaluationResult, ObjectTest
from iufbench.evaluation.values import IMAGE, PIXEL, metric_rows, score_rows
from iufbench.metrics import continual
from iufbench.metrics.image import image_score
from iufbench.support.errors import InputError
from iufbench.support.fields import suggest

SUMMARIES = ("acc", "acc_final", "fm", "fm_final", "new_object")


def anomaly_metrics(
    image: Sequence[str] = ("auroc", "ap"),
    pixel: Sequence[str] = ("auroc", "aupro_30"),
    matrix: bool = True,
) -> list[PluginMetric]:
    """Metrics for Avalanche's ``EvaluationPlugin``, exact over all thresholds.

    Metric names are ``image_auroc/eval_phase/test_stream/<object>`` for each object,
    ``image_auroc_mean/eval_phase/test_stream`` for the mean over the evaluated objects and, with ``matrix``,
    ``image_auroc_acc/...``, ``_acc_final``, ``_fm``, ``_fm_final`` and ``_new_object`` over the objects
    trained so far (definitions: ``iufbench explain acc``).

    Args:
        image: Image-level metrics, any of ``auroc``, ``ap`` and ``f1_max``.
        pixel: Pixel-level metrics, any of the above, ``aupimo`` and ``aupro_NN`` (AUPRO up to a
            false-positive rate of NN %), computed at 224x224. Objects without masks have none.
        matrix: Also collect R[experience, object] and its summaries.

    Returns:
        An ``AnomalyMetrics`` and, with ``matrix``, a ``ForgettingMatrix``.

    Raises:
        InputError: A metric name is unknown.

    Example:
        >>> print(*anomaly_metrics(pixel=()))
        AnomalyMetrics ForgettingMatrix
    """
    values = AnomalyMetrics(image, pixel)
    return [values, ForgettingMatrix(values)] if matrix else [values]


class Counting(PluginMetric):
    """Tracks how many experiences have been trained and whether one is being trained."""

    def __init__(self) -> None:
        super().__init__()
        self._own, self._inside = 0, False

    def before_training_exp(self, strategy: Any) -> None:
        self._inside = True

    def after_training_exp(self, strategy: Any) -> None:
        # Avalanche increments its clock later, after a periodic evaluation at the end of the experience.
        self._own, self._inside = strategy.clock.train_exp_counter + 1, False

    def trained(self, strategy: Any) -> int:
        """The number of experiences whose training is complete."""
        return max(self._own, strategy.clock.train_exp_counter)

    def __str__(self) -> str:
        return type(self).__name__


class AnomalyMetrics(Counting):
    """Emits the metrics of each object after its test experience and their means after the evaluation.

    The image score follows the strategy card. Only the maps of one object are held in memory.

    Attributes:
        rows: Results of the last evaluation, as in ``metrics.csv`` and ``scores.csv.gz``.
        last: Ground truth, maps [N, S, S] and scores [N] of the most recently evaluated object.
    """

    def __init__(self, image: Sequence[str] = IMAGE, pixel: Sequence[str] = PIXEL) -> None:
        super().__init__()
        self.image, self.pixel = _known("image", image, IMAGE), _known("pixel", pixel, (*PIXEL, "aupimo"))
        self.rows = EvaluationResult()
        self.last: tuple[ObjectTest, np.ndarray, np.ndarray] | None = None
        self._maps: list[Any] = []
        self._routed: list[np.ndarray] = []

    def reset(self) -> None:
        self.rows, self.last, self._maps, self._routed = EvaluationResult(), None, [], []

    def result(self) -> dict[str, float]:
        """``{"image_auroc/<object>": value}`` of the last evaluation."""
        return {f"{r.level}_{r.metric}/{r.object}": r.value for r in self.rows.metrics}

    def before_eval(self, strategy: Any) -> None:
        self.reset()

    def before_eval_exp(self, strategy: Any) -> None:
        self.last, self._maps, self._routed = None, [], []

    def after_eval_iteration(self, strategy: Any) -> None:
        maps = strategy.anomaly_maps()
        # Copied: a strategy may reuse the memory for its next batch.
        self._maps.append(maps.float().clone() if on_device.stays(maps) else as_array(maps))
        routed = getattr(strategy, "routed", None)
        if routed is not None:
            self._routed.append(np.asarray(routed.cpu() if hasattr(routed, "cpu") else routed))

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        truth = getattr(strategy.experience, "truth", None)
        if truth is None:
            raise InputError(
                "anomaly metrics need the ground truth of the test images: evaluate benchmark.test_stream of "
                "iufbench.make_benchmark"
            )
        rule, curve = strategy.recipe.score, None
        whole = joined(self._maps)
        maps = as_array(whole)
        if isinstance(whole, Tensor) and on_device.fits(whole.numel(), whole.device):
            scores, curve = (
                on_device.image_scores(whole, rule),
                partial(on_device.pixel_curve, maps=maps, device_maps=whole),
            )
        else:
            scores = image_score(maps, rule=rule)
        self.last, self._maps = (truth, maps, scores), []
        self.rows.scores += score_rows(truth, scores, self._routed)
        seen = truth.introduced < self.trained(strategy)
        found = metric_rows(truth, scores, maps, seen, self.image, self.pixel, curve)
        self.rows.metrics += found
        return [metric_value(self, strategy, f"{r.level}_{r.metric}", r.value, r.object) for r in found]

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        groups: dict[str, list[float]] = {}
        for row in self.rows.metrics:
            groups.setdefault(f"{row.level}_{row.metric}_mean", []).append(row.value)
        self.last = None
        return [metric_value(self, strategy, name, float(np.mean(v))) for name, v in groups.items()]


class ForgettingMatrix(Counting):
    """Collects R[t, o], every metric on object o after experience t, and emits its summaries.

    Evaluations in the middle of an experience are not added.
    """

    def __init__(self, values: AnomalyMetrics) -> None:
        super().__init__()
        self.values = values
        self.reset()

    def reset(self) -> None:
        self._cells: dict[tuple[str, str], dict[tuple[int, str], float]] = {}
        self._introduced: dict[str, int] = {}

    def result(self) -> dict[str, np.ndarray]:
        """``{"image_auroc": R}``, float64 [experiences, objects], NaN where nothing was evaluated."""
        return {f"{level}_{metric}": self.matrix(level, metric)[0] for level, metric in self._cells}

    @property
    def objects(self) -> list[str]:
        """The columns: objects in the order of the experiences that introduce them."""
        return sorted(self._introduced, key=lambda name: self._introduced[name])

    def matrix(self, level: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """R [T, O] and the experience [O] that introduces each object."""
        cells, objects = self._cells[level, metric], self.objects
        R = np.full((1 + max(t for t, _ in cells), len(objects)), math.nan)
        for (t, name), value in cells.items():
            R[t, objects.index(name)] = value
        return R, np.array([self._introduced[name] for name in objects])

    def recall(self, experience: int, truth: Sequence[ObjectTest], rows: Sequence[MetricRow]) -> None:
        """Add results that were evaluated after ``experience`` in an earlier process."""
        self._introduced |= {t.object: t.introduced for t in truth}
        for row in rows:
            self._cells.setdefault((row.level, row.metric), {})[experience, row.object] = row.value

    def after_eval_exp(self, strategy: Any) -> None:
        if self.values.last is not None:
            truth = self.values.last[0]
            self._introduced[truth.object] = truth.introduced

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        trained = self.trained(strategy)
        if self._inside or not trained:
            return []
        self.recall(trained - 1, (), self.values.rows.metrics)
        return [
            metric_value(self, strategy, f"{level}_{metric}_{name}", value)
            for level, metric in self._cells
            for name, value in self.summary(level, metric).items()
        ]

    def summary(self, level: str, metric: str) -> dict[str, float]:
        """ACC, FM and the other summaries over the objects trained so far, by name; NaN where undefined."""
        R, introduced = self.matrix(level, metric)
        learnt = introduced < len(R)
        R, introduced = R[:, learnt], introduced[learnt]
        return {name: float(getattr(continual, name)(R, introduced)) for name in SUMMARIES}


def _known(level: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        aupro = level == "pixel" and re.fullmatch(r"aupro_(?!00)\d\d", name)
        if name not in known and not aupro:
            raise InputError(
                f"unknown {level} metric '{name}'{suggest(name, known)} (known: {', '.join(known)})"
            )
    return tuple(names)


def joined(parts: Sequence[Any]) -> Any:
    """Maps of several batches, all arrays or all tensors, as one."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else np.concatenate(parts)


def as_array(maps: Any) -> np.ndarray:
    """Maps as float32 numbers on the CPU; arrays are returned as they are."""
    return maps if isinstance(maps, np.ndarray) else maps.float().cpu().numpy()


def metric_value(origin: Any, strategy: Any, name: str, value: Any, object: str = "") -> MetricValue:
    stream = strategy.experience.origin_stream.name
    place = f"/{object}" if object else ""
    return MetricValue(
        origin, f"{name}/eval_phase/{stream}_stream{place}", value, strategy.clock.train_iterations
    )
