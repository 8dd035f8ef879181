"""The Avalanche metric plugin: streams anomaly maps of one object at a time into exact metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue

from iufbench.data.images import load_mask
from iufbench.data.samples import Sample
from iufbench.metrics.image import image_metrics, image_score
from iufbench.metrics.pixel import pixel_metrics
from iufbench.rundir import MetricRow, ScoreRow


@dataclass(frozen=True)
class ObjectTest:
    """What is known about the test images of one object: labels [N], masks [N, S, S] or None, names."""

    object: str
    labels: np.ndarray
    masks: np.ndarray | None
    names: list[str]

    @classmethod
    def of(
        cls, name: str, samples: Sequence[Sample], root: Any, map_size: int, has_masks: bool
    ) -> ObjectTest:
        """Labels come from the file list; masks are resized to ``map_size`` by nearest neighbour."""
        return cls(
            object=name,
            labels=np.array([s.label for s in samples], dtype=bool),
            masks=np.stack([load_mask(s, map_size) for s in samples]) if has_masks else None,
            names=[s.image.relative_to(root).as_posix() for s in samples],
        )


@dataclass
class EvaluationResult:
    """Rows for ``metrics.csv`` and ``scores.csv.gz`` of one evaluation."""

    metrics: list[MetricRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)


class ObjectEvaluation(PluginMetric):
    """Evaluates every test experience (one object each) exactly, after its last batch.

    Memory: the maps [N, S, S] float32 of one object at a time. Image scores are the maximum of the
    16x16 average-pooled map (UniAD, IUF). A NaN or infinite score raises RunError naming the image.
    """

    def __init__(self, tests: Sequence[ObjectTest]) -> None:
        super().__init__()
        self._tests = tests
        self._maps: list[np.ndarray] = []
        self.experience = 0
        self.seen = 0
        # Called with (object test, maps [N, S, S]) when somebody wants more of them than numbers.
        self.on_maps: Callable[[ObjectTest, np.ndarray], None] | None = None
        self.result_rows = EvaluationResult()

    def start(self, experience: int, seen: int) -> None:
        """Begin the evaluation after ``experience``; the first ``seen`` objects have been learnt."""
        self.experience, self.seen = experience, seen
        self.result_rows = EvaluationResult()

    def before_eval_exp(self, strategy: Any) -> None:
        self._maps = []

    def after_eval_iteration(self, strategy: Any) -> None:
        self._maps.append(strategy.anomaly_maps().float().cpu().numpy())

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        number = strategy.experience.current_experience
        test = self._tests[number]
        maps = np.concatenate(self._maps)
        self._maps = []
        if self.on_maps is not None:
            self.on_maps(test, maps)
        scores = image_score(maps)
        values = {"image": image_metrics(test.labels, scores, names=test.names, object=test.object)}
        if test.masks is not None:
            values["pixel"] = pixel_metrics(test.masks, maps, names=test.names, object=test.object)
        for name, label, score in zip(test.names, test.labels, scores):
            self.result_rows.scores.append(ScoreRow(test.object, name, int(label), float(score)))
        for level, metrics in values.items():
            for metric, value in metrics.items():
                row = MetricRow(test.object, level, metric, float(value), number < self.seen)
                self.result_rows.metrics.append(row)
        return [
            MetricValue(self, f"{level}_auroc/{test.object}", metrics["auroc"], self.experience)
            for level, metrics in values.items()
        ]

    def reset(self) -> None:
        self._maps = []

    def result(self) -> EvaluationResult:
        return self.result_rows

    def __str__(self) -> str:
        return "ObjectEvaluation"
