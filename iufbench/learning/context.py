"""What a strategy receives at construction: its recipe and the shape of its inputs, but no data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from iufbench.cards.strategies import Recipe
from iufbench.support.seeding import Seeds


@dataclass(frozen=True)
class Uses:
    """The information a learner relies on, recorded in every run and shown beside its results. ``routing``:
    the learner selects the memory that scores each test image and reports it (``routed``)."""

    object_id_at_training: bool = False
    object_id_at_test: bool = False
    stored_images: bool = False
    gradients: bool = True
    routing: bool = False


@dataclass(frozen=True)
class Context:
    """The configuration of a strategy.

    Attributes:
        recipe: The resolved strategy card.
        options: The learner's own ``Options``.
        channels: Channels of the frozen features [B, channels, height, width].
        groups: Channels of each feature group; they add up to ``channels``.
        vector: Size of the per-image feature vector, 0 for none.
        feature_size: Height and width of the frozen features.
        map_size: Side in pixels of the evaluated anomaly maps.
        device: Where the network is trained.
        seeds: Seeds derived from the seed of the run.
        pixel_mean: The backbone's normalisation, for pixels in 0..1.
        pixel_std: The backbone's normalisation, for pixels in 0..1.
        encode: Computes the frozen features of uint8 images [B, 3, S, S], as the stream does.
        precision: Precision of the network's matrix products: fp32, tf32 or bf16.
        compile: Train with ``torch.compile``.
        step: auto, eager or graph (``iufbench.learning.step``).
    """

    recipe: Recipe
    options: Any
    channels: int
    groups: tuple[int, ...]
    vector: int
    feature_size: tuple[int, int]
    map_size: int
    device: torch.device
    seeds: Seeds
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    encode: Callable[[torch.Tensor], torch.Tensor]
    precision: str = "fp32"
    compile: bool = False
    step: str = "auto"

    def with_training(self, batch: int | None, epochs: int | None, test_batch: int | None) -> Context:
        """A copy whose card has other batch sizes and another number of epochs, where they are not None."""
        given = {"batch_size": batch, "epochs": epochs}
        given = {name: value for name, value in given.items() if value is not None}
        recipe = self.recipe
        for block in ("base", "increment"):
            training = dataclasses.replace(getattr(recipe, block), **given)
            recipe = dataclasses.replace(recipe, **{block: training})
        if test_batch is not None:
            recipe = dataclasses.replace(recipe, evaluation_batch_size=test_batch)
        return dataclasses.replace(self, recipe=recipe)
