"""Features are stored at the card's precision, and overflow is reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from iufbench.data.resident import FrozenInputs
from iufbench.data.samples import Sample
from iufbench.models.features import Features, FeatureShape
from iufbench.support.errors import RunError


class Times:
    """A backbone whose features are the pixels times a factor."""

    device = torch.device("cpu")

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def shape(self, image_size: int) -> FeatureShape:
        return FeatureShape(3, image_size, image_size)

    def encode(self, images: torch.Tensor) -> Features:
        return Features(images.float() * self.factor, None)


@pytest.fixture
def samples(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return [Sample(image=tmp_path / "a.png", object="a", split="train", label=0)]


@pytest.mark.parametrize("name", ["float16", "float32"])
def test_features_are_stored_rounded_and_batches_are_float32(samples, name):
    precision = getattr(torch, name)
    data = FrozenInputs(Times(1.001), 32, precision=precision).load(samples, [0])
    exact = FrozenInputs(Times(1.001), 32).load(samples, [0]).features
    assert data.features.dtype == precision
    batch = data.batch(torch.tensor([0])).x
    assert batch.dtype == torch.float32
    assert torch.equal(batch, exact.to(precision).float())


def test_features_that_overflow_name_the_image_and_the_remedy(samples):
    with pytest.raises(RunError, match=r"a\.png.*backbone\.precision=float32"):
        FrozenInputs(Times(1e6), 32, precision=torch.float16).load(samples, [0])
