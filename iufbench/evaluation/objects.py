"""The evaluation of a sealed run: a strategy never has access to the ground truth (labels, masks, names).

The strategy has a plugin that collects its anomaly maps and nothing else. The maps are evaluated after the
strategy has returned, with the same metric plugins that users attach, by an Avalanche evaluator that belongs
to the harness: no result is stored anywhere that the strategy can read.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from avalanche.benchmarks.scenarios.generic_scenario import CLExperience, CLStream
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from iufbench.evaluation import on_device
from iufbench.evaluation.anomaly import (
    IMAGE,
    PIXEL,
    AnomalyMetrics,
    ForgettingMatrix,
    as_array,
    joined,
)
from iufbench.evaluation.at_thresholds import ThresholdMetrics
from iufbench.evaluation.curves import TrainingCurves
from iufbench.evaluation.pictures import HeatMaps, MatrixPicture
from iufbench.evaluation.rows import CalibrationRow
from iufbench.evaluation.thresholds import calibration_rows
from iufbench.evaluation.truth import EvaluationResult, ObjectTest
from iufbench.metrics.check import require_finite
from iufbench.metrics.image import image_score
from iufbench.metrics.thresholds import Rule
from iufbench.support.background import OneBehind

__all__ = ["EvaluationResult", "MapCollector", "ObjectEvaluation", "ObjectTest"]


class MapCollector(SupervisedPlugin):
    """Collects the anomaly maps of a test experience, float32 [N, S, S], and nothing else about it.

    Where a strategy sets ``routed`` (int64 [B], after ``anomaly_maps``), the object whose memory scored each
    image is collected as well; -1 means no particular object.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Any] = []
        self._routed: list[np.ndarray] = []

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._parts, self._routed = [], []

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        maps = strategy.anomaly_maps().float()
        # Copied: a strategy may reuse the memory for its next batch.
        self._parts.append(maps.clone() if on_device.stays(maps) else maps.cpu().numpy())
        routed = getattr(strategy, "routed", None)
        if routed is not None:
            self._routed.append(routed.cpu().numpy())

    def take(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return and release the maps of the last test experience, and its ``routed`` int64 [N] or None."""
        maps, routed = self.take_in_place()
        return as_array(maps), routed

    def take_in_place(self) -> tuple[Any, np.ndarray | None]:
        """As ``take``, but maps on a GPU are returned as a tensor there."""
        maps = joined(self._parts)
        routed = np.concatenate(self._routed) if self._routed else None
        self._parts, self._routed = [], []
        return maps, routed


class ObjectEvaluation:
    """Computes exact metrics from the maps of each test experience (one object), after its last batch.

    ``maps`` is the plugin for the strategy, ``score`` the image score rule (``metrics.image.image_score``).
    ``evaluator`` belongs to the harness and holds the metrics and any loggers (``log_to``); it receives
    ``_seen`` in place of the strategy. Only the maps of one object are held in memory, of two within
    ``one_behind``. A NaN or infinite score raises RunError naming the image. With a ``rule``, metrics at
    calibrated thresholds are added: ``calibrations`` are the names of the calibration images of each object,
    ``thresholds`` the metrics.
    """

    def __init__(
        self,
        tests: Sequence[ObjectTest],
        score: str = "pooled_max",
        rule: Rule | None = None,
        calibrations: Sequence[Sequence[str]] = (),
    ) -> None:
        self.tests, self.score, self.calibrations = tests, score, calibrations
        self.maps = MapCollector()
        self.values = AnomalyMetrics(IMAGE, PIXEL)
        self.thresholds = None if rule is None else ThresholdMetrics(self.values, rule)
        self.matrix = ForgettingMatrix(self.values)
        self._calibrated: list[CalibrationRow] = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No loggers specified")  # run directories are the log
            self.evaluator = EvaluationPlugin(*self._metrics, collect_all=False)
        # Called with (object test, maps [N, S, S]) if set, for uses beyond the metrics.
        self.on_maps: Callable[[ObjectTest, np.ndarray], None] | None = None
        self._seen = SimpleNamespace()
        self._behind: OneBehind | None = None

    @property
    def _metrics(self) -> list[Any]:
        thresholds = [] if self.thresholds is None else [self.thresholds]
        return [self.values, *thresholds, self.matrix]

    def log_to(self, loggers: Sequence[Any]) -> None:
        """Also send all metrics and pictures to Avalanche loggers."""
        pictures = [MatrixPicture(self.matrix), HeatMaps(self.values)]
        metrics = [TrainingCurves(), *self._metrics, *pictures]
        self.evaluator = EvaluationPlugin(*metrics, loggers=list(loggers), collect_all=False)

    def watched(self, epochs: Iterator[None], strategy: Any, experience: Any, number: int) -> Iterator[None]:
        """Iterate over ``epochs`` (from ``train_by_epoch``) and log the values of each epoch."""
        if not self.evaluator.loggers:
            yield from epochs
            return
        seen = SimpleNamespace(
            clock=strategy.clock, experience=_experience("train", number), is_training=True, is_eval=False
        )
        seen.experience.resident = experience.resident
        self.evaluator.before_training_epoch(seen)
        for _ in epochs:
            seen.training_log = strategy.training_log
            self.evaluator.after_training_epoch(seen)
            yield
            self.evaluator.before_training_epoch(seen)

    def start(self, experience: int, seen: int, iterations: int = 0) -> None:
        """Begin the evaluation after ``experience``.

        Args:
            experience: Index of the last trained experience, from 0.
            seen: Number of objects trained so far.
            iterations: Training iterations so far.
        """
        clock = SimpleNamespace(train_exp_counter=experience + 1 if seen else 0, train_iterations=iterations)
        self._seen = SimpleNamespace(
            clock=clock,
            recipe=SimpleNamespace(score=self.score),
            experience=_experience("test", 0),
            is_training=False,
            is_eval=True,
        )
        self.evaluator.before_eval(self._seen)

    def calibrate(self, number: int) -> None:
        """Keep the numbers of the collected maps of the calibration images of object ``number``, for the
        metrics at its thresholds in the following ``judge``."""
        name, (maps, _) = self.tests[number].object, self.maps.take()
        names = self.calibrations[number]
        scores = image_score(maps, rule=self.score)
        require_finite(scores, names, name)
        self._calibrated = calibration_rows(name, names, scores, maps)

    @contextmanager
    def one_behind(self) -> Iterator[None]:
        """Context manager in which ``judge`` evaluates maps on the CPU in a thread, and returns at once.

        Rows, their order and the order of errors are as without: an object starts when the previous one is
        done, and its error is raised by the next ``judge`` or at the exit.
        """
        try:
            with OneBehind() as self._behind:
                yield
        finally:
            self._behind = None

    def judge(self, number: int) -> None:
        """Evaluate the collected maps of object ``number``: add its rows and log its metrics."""
        if self._behind is not None:
            self._behind.wait()  # before another object's maps are joined
        maps, routed = self.maps.take_in_place()
        if isinstance(maps, Tensor) and not on_device.fits(maps.numel(), maps.device):
            maps = as_array(maps)
        calibrated, self._calibrated = self._calibrated, []
        if self._behind is not None and isinstance(maps, np.ndarray):
            self._behind.run(self._evaluate, number, maps, routed, calibrated)
        else:
            self._evaluate(number, maps, routed, calibrated)

    def _evaluate(
        self, number: int, maps: Any, routed: np.ndarray | None, calibrated: list[CalibrationRow]
    ) -> None:
        test, seen = self.tests[number], self._seen
        if self.on_maps is not None:
            self.on_maps(test, as_array(maps))
        seen.experience = _experience("test", number)
        seen.experience.truth = test
        seen.experience.calibration = calibrated
        seen.anomaly_maps, seen.routed = lambda: maps, routed
        self.evaluator.before_eval_exp(seen)
        self.evaluator.after_eval_iteration(seen)
        self.evaluator.after_eval_exp(seen)
        del seen.anomaly_maps
        self.values.last = None  # frees the maps before the next object's are computed

    def finish(self) -> EvaluationResult:
        """End the evaluation: log the means over objects and the matrix, and return all rows."""
        self.evaluator.after_eval(self._seen)
        return self.result()

    def result(self) -> EvaluationResult:
        """The rows of the objects evaluated since ``start``."""
        return self.values.rows


def _experience(stream: str, number: int) -> Any:
    """A stand-in experience with what loggers need: its stream and number."""
    experience = CLExperience(current_experience=number, origin_stream=CLStream(stream, []))
    experience.task_labels = [0]
    return experience
