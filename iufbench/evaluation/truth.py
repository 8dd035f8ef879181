"""The ground truth of test images, and the rows that an evaluation produces."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iufbench.data.decoding import Decoding
from iufbench.data.masks import Doubt, PackedMasks, load_masks
from iufbench.data.samples import Sample
from iufbench.evaluation.rows import CalibrationRow, MetricRow, ScoreRow


@dataclass(frozen=True)
class ObjectTest:
    """The ground truth of the N test images of one object.

    Attributes:
        object: Name of the object.
        labels: bool [N], true for defective images.
        masks: Pixel annotation of all N images, or None.
        names: Paths of the images relative to ``root``.
        parts: The physical part in each image [N] where several images show one part, else None.
        kinds: Kind of defect -> bool [N].
        without: Metrics that are not computed (see ``DataSetCard``).
        doubts: Likely faults of the masks.
        introduced: Experience that first trains on the object, from 0.
        objects: Names of all objects by object id, to resolve the ``routed`` ids of a strategy.
        root: Data root.
        decoding: How the images are decoded.
    """

    object: str
    labels: np.ndarray
    masks: PackedMasks | None
    names: list[str]
    parts: list[str] | None = None
    kinds: Mapping[str, np.ndarray] = field(default_factory=dict)
    without: Collection[str] = ()
    doubts: tuple[Doubt, ...] = ()
    introduced: int = 0
    objects: tuple[str, ...] = ()
    root: Path | None = None
    decoding: Decoding | None = None

    @classmethod
    def of(
        cls,
        name: str,
        samples: Sequence[Sample],
        root: Path,
        map_size: int,
        how: Decoding | None,
        kinds: Mapping[str, Collection[str]] | None = None,
        without: Collection[str] = (),
        experiences: Sequence[Sequence[str]] = (),
    ) -> ObjectTest:
        """Read the ground truth of one object.

        Args:
            name: Name of the object.
            samples: Its test images; labels come from the file list.
            root: Data root.
            map_size: Side in pixels to which masks are resized (nearest neighbour).
            how: How masks are decoded; None if the object has no masks.
            kinds: Kind of defect -> its defect types.
            without: Metrics that are not computed.
            experiences: The objects of each experience, in training order.

        Returns:
            The ground truth.

        Raises:
            InputError: A mask cannot be read or does not fit its image.
        """
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
            introduced=next((t for t, group in enumerate(experiences) if name in group), 0),
            objects=tuple(o for group in experiences for o in group),
            root=root,
            decoding=how,
        )


@dataclass
class EvaluationResult:
    """The rows of one evaluation for ``metrics.csv``, ``scores.csv.gz`` and ``calibration.csv.gz``."""

    metrics: list[MetricRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
    calibration: list[CalibrationRow] = field(default_factory=list)
