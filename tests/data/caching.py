"""Shared by tests of caches: a backbone without cost."""

from __future__ import annotations

import torch

from iufbench.data.resident import FrozenInputs
from iufbench.models.backbone import BackboneSpec
from iufbench.models.features import Features, FeatureShape


class Means:
    """Replaces FrozenBackbone: means of 16x16 blocks."""

    device = torch.device("cpu")

    def __init__(self, weights: str = "0", **spec) -> None:
        self.weights_sha256, self.spec = weights, BackboneSpec(**spec)
        self.encoded = 0

    def shape(self, image_size: int) -> FeatureShape:
        return FeatureShape(3, image_size // 16, image_size // 16, 3 if self.spec.vector == "mean" else 0)

    def encode(self, images: torch.Tensor) -> Features:
        self.encoded += len(images)
        maps = torch.nn.functional.avg_pool2d(images.float() / 7, 16)
        return Features(maps, maps.mean(dim=(2, 3)) if self.spec.vector == "mean" else None)


def inputs(backbone=None, size=32, guide=8, precision=torch.float16) -> FrozenInputs:
    return FrozenInputs(backbone or Means(), size, guide, precision)


def loaded(dataset, given: FrozenInputs):
    """All samples of a data set, in its order."""
    return given.load(dataset.samples, [0] * len(dataset.samples))
