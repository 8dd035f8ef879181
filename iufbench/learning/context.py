"""What a strategy is told when it is built: its recipe and the shape of its inputs, and no data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from iufbench.cards.strategies import Recipe
from iufbench.support.seeding import Seeds


@dataclass(frozen=True)
class Uses:
    """What a learner relies on, recorded in every run and shown beside its numbers. ``routing``: it chooses
    for every test image the memory that judges it, and says which (``routed``)."""

    object_id_at_training: bool = False
    object_id_at_test: bool = False
    stored_images: bool = False
    gradients: bool = True
    routing: bool = False


@dataclass(frozen=True)
class Context:
    """``options`` is the learner's own ``Options``; ``channels`` and ``feature_size`` are those of the
    frozen features [B, channels, height, width], ``groups`` the channels of each block of them and ``vector``
    the numbers beside them that describe an image as a whole (0: none); ``map_size`` is the side of the
    anomaly maps that are evaluated; ``pixel_mean`` and ``pixel_std`` are the backbone's normalisation, in
    0..1; ``precision`` of the network's matrix products is fp32, tf32 or bf16; ``compile`` asks for
    ``torch.compile``; ``step`` is auto, eager or graph (``iufbench.learning.step``).
    ``encode`` gives the frozen features of uint8 images [B, 3, S, S], as the stream does."""

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
