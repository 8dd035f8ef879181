"""An upper bound for incremental learning: every experience trains on all images so far."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from iufbench.data.resident import Batches, ResidentData
from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.context import Uses


class Cumulative(ReconstructionStrategy):
    """UniAD that keeps the inputs of every image it has seen and trains on all of them.

    Training continues from the weights of the last experience (not from scratch) with the card's
    ``increment`` schedule; an epoch covers all images, so that experiences take longer and longer.
    """

    uses: ClassVar[Uses] = Uses(stored_images=True)
    carried: ClassVar[tuple[str, ...]] = ("kept",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._trained: Any = None  # the ResidentData of the current experience and those before it
        self.kept: dict[str, Any] = {}  # the fields of ResidentData: tensors, or None

    def training_batches(self, generator: torch.Generator) -> Batches:
        data = self.experience.resident
        if self.kept:
            # A checkpoint restores tensors to the learner's device, which may differ from the stream's.
            device = data.features.device
            moved: dict[str, Any] = {n: None if t is None else t.to(device) for n, t in self.kept.items()}
            kept = ResidentData(moved["features"], moved["objects"], moved["guide"])
            self.replayed_images = len(kept)
            data = ResidentData.concatenate([kept, data])
        self._trained = data
        return Batches(data, self.train_mb_size, generator)

    def _after_training_exp(self, **kwargs: Any) -> None:
        data = self._trained
        self.kept = {"features": data.features, "objects": data.objects, "guide": data.guide}
        super()._after_training_exp(**kwargs)
