"""Training curves (losses, learning rate, throughput) as an Avalanche metric."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import time
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue


class TrainingCurves(PluginMetric):
    """Emits each loss term, the learning rate and the training images per second after every epoch.

    Metric names are ``loss/train_phase/train_stream``, ``reconstruction/...``, ``lr/...`` and
    ``images_per_s/...``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self._start = time.perf_counter()
        self._last: dict[str, float] = {}

    def result(self) -> dict[str, float]:
        """The values of the last epoch, by name."""
        return self._last

    def before_training_epoch(self, strategy: Any) -> None:
        self._start = time.perf_counter()

    def after_training_epoch(self, strategy: Any) -> list[MetricValue]:
        seconds = time.perf_counter() - self._start
        images = len(strategy.experience.resident)
        self._last = {**strategy.training_log[-1], "images_per_s": images / max(seconds, 1e-9)}
        step = strategy.clock.train_iterations
        return [
            MetricValue(self, f"{name}/train_phase/train_stream", float(value), step)
            for name, value in self._last.items()
        ]

    def __str__(self) -> str:
        return "TrainingCurves"


def training_metrics() -> list[PluginMetric]:
    """Training metrics for Avalanche's ``EvaluationPlugin``: losses, learning rate, images per second."""
    return [TrainingCurves()]
