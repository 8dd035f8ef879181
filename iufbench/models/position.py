"""Position embeddings of tokens on the grid: learned (UniAD's default) or sinusoidal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iufbench.support.errors import InputError


class LearnedPosition(nn.Module):
    """One learned vector per row and one per column; the first half of the channels is the column's."""

    def __init__(self, feature_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(feature_size[0], channels // 2)
        self.col_embed = nn.Embedding(feature_size[1], channels // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self) -> Tensor:
        """[H*W, E], row-major."""
        rows, columns = self.row_embed.weight, self.col_embed.weight
        shape = (rows.shape[0], columns.shape[0], -1)
        return torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], dim=-1).flatten(0, 1)


class SinePosition(nn.Module):
    """Fixed sines and cosines; the first half of the channels is the row's (unlike the learned embedding)."""

    table: Tensor

    def __init__(self, feature_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.register_buffer("table", sine_position(feature_size, channels), persistent=False)

    def forward(self) -> Tensor:
        """[H*W, E], row-major."""
        return self.table


def sine_position(feature_size: tuple[int, int], channels: int) -> Tensor:
    """Sine position embedding [H*W, E] of DETR with normalised positions.

    Positions run from 1/size to 1 of a full turn; channel i of a half has frequency
    10000^(-2 floor(i/2) / (E/2)), sine where i is even and cosine where it is odd.
    """
    half = channels // 2
    i = torch.arange(half, dtype=torch.float32)
    wavelength = 10000.0 ** (2 * (i // 2) / half)

    def encode(size: int) -> Tensor:
        steps = torch.arange(1, size + 1, dtype=torch.float32) / (size + 1e-6) * 2 * math.pi
        angle = steps[:, None] / wavelength
        return torch.where(i.long() % 2 == 0, angle.sin(), angle.cos())

    rows, columns = encode(feature_size[0]), encode(feature_size[1])
    shape = (feature_size[0], feature_size[1], half)
    return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], dim=-1).flatten(0, 1)


def make_position(kind: str, feature_size: tuple[int, int], channels: int) -> LearnedPosition | SinePosition:
    """Create a position embedding: ``kind`` is ``learned`` or ``sine``; ``channels`` must be even."""
    if channels % 2:
        raise InputError(f"hidden: {channels} must be even (one half encodes rows, the other columns)")
    if kind == "learned":
        return LearnedPosition(feature_size, channels)
    if kind == "sine":
        return SinePosition(feature_size, channels)
    raise InputError(f"position: {kind!r} is unknown; allowed are learned, sine")
