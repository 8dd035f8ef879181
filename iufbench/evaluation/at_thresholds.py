"""Metrics at thresholds that were calibrated on normal images, as an Avalanche metric."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue

from iufbench.evaluation.anomaly import AnomalyMetrics, metric_value
from iufbench.evaluation.rows import CalibrationRow, MetricRow, ScoreRow
from iufbench.evaluation.thresholds import (
    Thresholds,
    frozen_thresholds,
    image_values,
    image_values_at,
    thresholds_of,
)
from iufbench.evaluation.truth import ObjectTest
from iufbench.metrics.thresholds import Rule, best_f1_threshold, segmentation

NOWHERE = Thresholds(float("nan"), float("nan"))


class ThresholdMetrics(PluginMetric):
    """Emits the metrics of each object at its thresholds, after ``values`` has emitted its own.

    A test experience has the rows of the object's calibration images (``experience.calibration``), empty for
    an object that has not been trained on; metrics that need a threshold are then omitted.

    Attributes:
        frozen: Object -> thresholds right after it was learnt.
        oracle: Object -> threshold of the best F1 on its test images right after it was learnt.
    """

    def __init__(self, values: AnomalyMetrics, rule: Rule) -> None:
        super().__init__()
        self.values, self.rule = values, rule
        self.frozen: dict[str, Thresholds] = {}
        self.oracle: dict[str, float] = {}

    def reset(self) -> None:
        pass

    def result(self) -> dict[str, Thresholds]:
        """The frozen thresholds by object."""
        return self.frozen

    def recall(self, calibration: Iterable[Sequence[CalibrationRow]], scores: Iterable[ScoreRow]) -> None:
        """Restore the records of an earlier process.

        Args:
            calibration: The rows of each evaluated experience, from the first.
            scores: The test scores of each object right after it was learnt.
        """
        self.frozen = frozen_thresholds(calibration, self.rule)
        found: dict[str, list[ScoreRow]] = {}
        for row in scores:
            found.setdefault(row.object, []).append(row)
        for name, rows in found.items():
            self.oracle[name] = best_f1_threshold([r.label == 1 for r in rows], [r.score for r in rows])

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        if self.values.last is None:
            return []
        truth, maps, scores = self.values.last
        rows: list[CalibrationRow] = getattr(strategy.experience, "calibration", [])
        own = NOWHERE
        if rows:
            own = thresholds_of(rows, self.rule)
            self.frozen.setdefault(truth.object, own)
            self.oracle.setdefault(truth.object, best_f1_threshold(truth.labels, scores))
            self.values.rows.calibration += rows
        seen = truth.introduced < self.values.trained(strategy)
        found = [
            MetricRow(truth.object, level, metric, value, seen)
            for level, values in self._values(truth, maps, scores, own, bool(rows)).items()
            for metric, value in values.items()
        ]
        self.values.rows.metrics += found
        return [metric_value(self, strategy, f"{r.level}_{r.metric}", r.value, r.object) for r in found]

    def _values(
        self, truth: ObjectTest, maps: np.ndarray, scores: np.ndarray, own: Thresholds, calibrated: bool
    ) -> dict[str, dict[str, float]]:
        labels = truth.labels
        image = image_values(labels, scores)
        pixel: dict[str, float] = {}
        if calibrated:
            frozen = self.frozen[truth.object]
            image |= image_values_at(labels, scores, frozen.image, own.image, self.oracle[truth.object])
            if truth.masks is not None and self.values.pixel:
                masks = truth.masks.unpacked()
                for when, level in (("frozen", frozen.pixel), ("own", own.pixel)):
                    pixel |= {f"{k}_{when}": v for k, v in segmentation(masks, maps, level).items()}
        return {"image": image, "pixel": pixel}

    def __str__(self) -> str:
        return "ThresholdMetrics"
