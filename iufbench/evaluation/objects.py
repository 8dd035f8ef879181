"""The evaluation of a sealed run: the truth (labels, masks, names) and the strategy never meet.

The strategy has a plugin that collects its own maps, and nothing else; they are judged after the strategy has
let them go, by the same metric plugins that a user attaches, under an Avalanche evaluator that the harness
owns: no value reaches anything that the strategy can read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from avalanche.benchmarks.scenarios.generic_scenario import CLExperience, CLStream
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from iufbench.evaluation.anomaly import IMAGE, PIXEL, AnomalyMetrics, ForgettingMatrix
from iufbench.evaluation.curves import TrainingCurves
from iufbench.evaluation.pictures import HeatMaps, MatrixPicture
from iufbench.evaluation.truth import EvaluationResult, ObjectTest

__all__ = ["EvaluationResult", "MapCollector", "ObjectEvaluation", "ObjectTest"]


class MapCollector(SupervisedPlugin):
    """Collects the maps [N, S, S] float32 of a test experience, and which object's memory made each where a
    strategy says so (``routed`` int64 [B], -1: none in particular, after ``anomaly_maps``); nothing else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[np.ndarray] = []
        self._routed: list[np.ndarray] = []

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._parts, self._routed = [], []

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self._parts.append(strategy.anomaly_maps().float().cpu().numpy())
        routed = getattr(strategy, "routed", None)
        if routed is not None:
            self._routed.append(routed.cpu().numpy())

    def take(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The maps of the experience that was evaluated last, and the object whose memory judged each image,
        int64 [N], or None; they are kept no longer."""
        maps = np.concatenate(self._parts)
        routed = np.concatenate(self._routed) if self._routed else None
        self._parts, self._routed = [], []
        return maps, routed


class ObjectEvaluation:
    """Judges the maps of every test experience (one object each) exactly, after its last batch.

    ``maps`` is the plugin for the strategy; ``score`` the rule for image scores
    (``metrics.image.image_score``). ``evaluator`` is the harness's own, with the metrics and perhaps loggers
    (``log_to``); it is shown ``_seen``, which stands in for the strategy. Memory: the maps of one object at a
    time. A NaN or infinite score raises RunError naming the image.
    """

    def __init__(self, tests: Sequence[ObjectTest], score: str = "pooled_max") -> None:
        self.tests, self.score = tests, score
        self.maps = MapCollector()
        self.values = AnomalyMetrics(IMAGE, PIXEL)
        self.matrix = ForgettingMatrix(self.values)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No loggers specified")  # run directories are the log
            self.evaluator = EvaluationPlugin(self.values, self.matrix, collect_all=False)
        # Called with (object test, maps [N, S, S]) when somebody wants more of them than numbers.
        self.on_maps: Callable[[ObjectTest, np.ndarray], None] | None = None
        self._seen = SimpleNamespace()

    def log_to(self, loggers: Sequence[Any]) -> None:
        """Give all values and pictures to Avalanche loggers, too."""
        pictures = [MatrixPicture(self.matrix), HeatMaps(self.values)]
        metrics = [TrainingCurves(), self.values, self.matrix, *pictures]
        self.evaluator = EvaluationPlugin(*metrics, loggers=list(loggers), collect_all=False)

    def watched(self, epochs: Iterator[None], strategy: Any, experience: Any, number: int) -> Iterator[None]:
        """``epochs``, the pauses of ``train_by_epoch``, with the values of each epoch logged in its pause."""
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
        """Begin the evaluation after ``experience``; the first ``seen`` objects have been learnt, in
        ``iterations`` of training."""
        clock = SimpleNamespace(train_exp_counter=experience + 1 if seen else 0, train_iterations=iterations)
        self._seen = SimpleNamespace(
            clock=clock,
            recipe=SimpleNamespace(score=self.score),
            experience=_experience("test", 0),
            is_training=False,
            is_eval=True,
        )
        self.evaluator.before_eval(self._seen)

    def judge(self, number: int) -> None:
        """Turn the collected maps of the object with this number into rows and logged values."""
        test, (maps, routed) = self.tests[number], self.maps.take()
        if self.on_maps is not None:
            self.on_maps(test, maps)
        seen = self._seen
        seen.experience = _experience("test", number)
        seen.experience.truth = test
        seen.anomaly_maps, seen.routed = lambda: maps, routed
        self.evaluator.before_eval_exp(seen)
        self.evaluator.after_eval_iteration(seen)
        self.evaluator.after_eval_exp(seen)
        del seen.anomaly_maps

    def finish(self) -> EvaluationResult:
        """End the evaluation: means over the objects and the matrix are logged; the rows of it."""
        self.evaluator.after_eval(self._seen)
        return self.result()

    def result(self) -> EvaluationResult:
        """The rows of the objects judged since ``start``."""
        return self.values.rows


def _experience(stream: str, number: int) -> Any:
    """What loggers ask of an experience: its stream and number."""
    experience = CLExperience(current_experience=number, origin_stream=CLStream(stream, []))
    experience.task_labels = [0]
    return experience
