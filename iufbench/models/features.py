"""The features of a frozen backbone, and how they are packed into rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Features(NamedTuple):
    """``map`` float32 [B, C, h, w]; ``vector`` float32 [B, V], one per image, or None."""

    map: Tensor
    vector: Tensor | None


class FeatureShape(NamedTuple):
    """The shape of an image's features: a map [channels, height, width] and a vector of ``vector`` numbers.

    In memory and on disk they are stored as one row: the map, or its numbers followed by the vector's.
    """

    channels: int
    height: int
    width: int
    vector: int = 0

    @property
    def numbers(self) -> int:
        return self.channels * self.height * self.width + self.vector

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of a stored row."""
        return (self.numbers,) if self.vector else (self.channels, self.height, self.width)

    def pack(self, features: Features) -> Tensor:
        """Rows [B, *row] of the features of images."""
        if features.vector is None:
            return features.map
        return torch.cat([features.map.flatten(1), features.vector], dim=1)

    def unpack(self, rows: Tensor) -> Features:
        """The features in rows [B, *row], in their precision; views, not copies."""
        if not self.vector:
            return Features(rows, None)
        maps = rows[:, : self.numbers - self.vector]
        return Features(maps.unflatten(1, (self.channels, self.height, self.width)), rows[:, -self.vector :])


def align_features(maps: Sequence[Tensor], strides: Sequence[int], target_stride: int) -> Tensor:
    """Resample feature maps to one stride and stack their channels (UniAD).

    Interpolation is bilinear with aligned corners, without anti-aliasing even if a map shrinks.

    Args:
        maps: Feature maps [B, C_i, h_i, w_i].
        strides: Their strides in pixels; the finest map determines (h, w).
        target_stride: The stride of the result.

    Returns:
        [B, sum C_i, h, w].
    """
    return torch.cat(aligned(maps, strides, target_stride), dim=1)


def aligned(maps: Sequence[Tensor], strides: Sequence[int], target_stride: int) -> list[Tensor]:
    """The resampled feature maps that ``align_features`` stacks."""
    finest = min(range(len(maps)), key=lambda i: strides[i])
    size = [round(s * strides[finest] / target_stride) for s in maps[finest].shape[-2:]]
    return [
        m if list(m.shape[-2:]) == size else F.interpolate(m, size=size, mode="bilinear", align_corners=True)
        for m in maps
    ]
