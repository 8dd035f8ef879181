"""Anomaly maps of one object at a time become exact metrics.

The truth (labels, masks, names) and the strategy never meet: the strategy's evaluator holds a plugin that
collects the strategy's own maps, and nothing else; they are judged after the strategy has let them go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric

from iufbench.data.decoding import Decoding
from iufbench.data.masks import Doubt, PackedMasks, load_masks
from iufbench.data.samples import Sample
from iufbench.evaluation.rows import MetricRow, ScoreRow
from iufbench.metrics.image import image_metrics, image_score, kind_auroc, sample_auroc
from iufbench.metrics.pixel import pixel_metrics


@dataclass(frozen=True)
class ObjectTest:
    """What is known about the test images of one object: labels [N], masks (of N) or None, names.

    ``parts`` [N] are the physical parts where several images show one, else None. ``kinds`` maps a kind of
    defect to bool [N]; ``without`` are metrics that are not computed (see ``DataSetCard``). ``doubts``: what
    is likely wrong with its masks.
    """

    object: str
    labels: np.ndarray
    masks: PackedMasks | None
    names: list[str]
    parts: list[str] | None = None
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    without: Collection[str] = ()
    doubts: tuple[Doubt, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        samples: Sequence[Sample],
        root: Any,
        map_size: int,
        how: Decoding | None,
        kinds: Mapping[str, Collection[str]] | None = None,
        without: Collection[str] = (),
    ) -> ObjectTest:
        """Labels come from the file list; masks are decoded by ``how`` (None: there are none) and resized to
        ``map_size`` by nearest neighbour. ``kinds`` maps a kind of defect to its types."""
        parts = [s.part for s in samples]
        masks, doubts = (None, []) if how is None else load_masks(samples, map_size, how)
        return cls(
            parts=parts if len(set(parts)) < len(parts) and all(parts) else None,
            kinds={k: np.array([s.defect in types for s in samples]) for k, types in (kinds or {}).items()},
            without=without,
            object=name,
            labels=np.array([s.label for s in samples], dtype=bool),
            masks=None if masks is None else PackedMasks.of(masks),
            names=[s.image.relative_to(root).as_posix() for s in samples],
            doubts=tuple(doubts),
        )


@dataclass
class EvaluationResult:
    """Rows for ``metrics.csv`` and ``scores.csv.gz`` of one evaluation."""

    metrics: list[MetricRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)


class AnomalyMaps(PluginMetric):
    """Collects the maps [N, S, S] float32 of a test experience, and which object's memory made each where a
    strategy says so (``routed`` int64 [B], -1: none in particular, after ``anomaly_maps``); nothing else.

    It publishes no values: what a strategy scored on test images is no feedback for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[np.ndarray] = []
        self._routed: list[np.ndarray] = []

    def before_eval_exp(self, strategy: Any) -> None:
        self.reset()

    def after_eval_iteration(self, strategy: Any) -> None:
        self._parts.append(strategy.anomaly_maps().float().cpu().numpy())
        routed = getattr(strategy, "routed", None)
        if routed is not None:
            self._routed.append(routed.cpu().numpy())

    def take(self) -> np.ndarray:
        """The maps of the experience that was evaluated last; they are kept no longer."""
        maps, self._parts = np.concatenate(self._parts), []
        return maps

    def routed(self) -> np.ndarray | None:
        """int64 [N]: the object whose memory judged each image of the experience evaluated last, if any."""
        return np.concatenate(self._routed) if self._routed else None

    def reset(self) -> None:
        self._parts, self._routed = [], []

    def result(self) -> None:
        return None

    def __str__(self) -> str:
        return "AnomalyMaps"


class ObjectEvaluation:
    """Judges the maps of every test experience (one object each) exactly, after its last batch.

    ``maps`` is the plugin for the strategy's evaluator; ``score`` the rule for image scores
    (``metrics.image.image_score``). Memory: the maps of one object at a time. A NaN or infinite score raises
    RunError naming the image.
    """

    def __init__(self, tests: Sequence[ObjectTest], score: str = "pooled_max") -> None:
        self.tests, self.score = tests, score
        self.maps = AnomalyMaps()
        self.experience = 0
        self.seen = 0
        # Called with (object test, maps [N, S, S]) when somebody wants more of them than numbers.
        self.on_maps: Callable[[ObjectTest, np.ndarray], None] | None = None
        self._rows = EvaluationResult()

    def start(self, experience: int, seen: int) -> None:
        """Begin the evaluation after ``experience``; the first ``seen`` objects have been learnt."""
        self.experience, self.seen = experience, seen
        self._rows = EvaluationResult()

    def judge(self, number: int) -> None:
        """Turn the collected maps of the object with this number into rows."""
        test, maps = self.tests[number], self.maps.take()
        if self.on_maps is not None:
            self.on_maps(test, maps)
        scores = image_score(maps, rule=self.score)
        values = {"image": image_metrics(test.labels, scores, names=test.names, object=test.object)}
        if test.parts is not None:
            values["image"]["auroc_sample"] = sample_auroc(test.labels, scores, test.parts)
        for kind, of_kind in test.kinds.items():
            values["image"][f"auroc_{kind}"] = kind_auroc(test.labels, scores, of_kind)
        if test.masks is not None:
            values["pixel"] = pixel_metrics(test.masks.unpacked(), maps, names=test.names, object=test.object)
        found = self.maps.routed()
        routed = [None] * len(scores) if found is None else [self._name(n) for n in found]
        columns = zip(test.names, map(int, test.labels), map(float, scores), routed)
        rows = [ScoreRow(test.object, *row) for row in columns]
        self._rows.scores += sorted(rows, key=lambda row: row.image)  # the stream's order is a shuffled one
        for level, metrics in values.items():
            for metric, value in metrics.items():
                if metric in test.without:
                    continue
                row = MetricRow(test.object, level, metric, float(value), number < self.seen)
                self._rows.metrics.append(row)

    def _name(self, number: int) -> str:
        return self.tests[number].object if number >= 0 else ""

    def result(self) -> EvaluationResult:
        return self._rows
