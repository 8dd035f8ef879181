"""What is known about test images, and the rows that an evaluation leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iufbench.data.decoding import Decoding
from iufbench.data.masks import Doubt, PackedMasks, load_masks
from iufbench.data.samples import Sample
from iufbench.evaluation.rows import MetricRow, ScoreRow


@dataclass(frozen=True)
class ObjectTest:
    """What is known about the test images of one object: labels [N], masks (of N) or None, names.

    ``parts`` [N] are the physical parts where several images show one, else None. ``kinds`` maps a kind of
    defect to bool [N]; ``without`` are metrics that are not computed (see ``DataSetCard``). ``doubts``: what
    is likely wrong with its masks. ``introduced``: the experience that trains the object, from 0.
    ``objects``: the names of all objects by their ids, for strategies that say which object's memory judged
    an image. ``root``: folder of the names; ``decoding``: how its images are read.
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
        """Labels come from the file list; masks are decoded by ``how`` (None: there are none) and resized to
        ``map_size`` by nearest neighbour. ``kinds`` maps a kind of defect to its types.
        ``experiences``: the objects that are trained together, in their order."""
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
    """Rows for ``metrics.csv`` and ``scores.csv.gz`` of one evaluation."""

    metrics: list[MetricRow] = field(default_factory=list)
    scores: list[ScoreRow] = field(default_factory=list)
