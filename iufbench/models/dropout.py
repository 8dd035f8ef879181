"""Dropout that does not spend a quarter of a training step on random numbers.

On the CPU torch draws a 64-bit random number for every value; here one is enough for four values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


@dataclass(frozen=True)
class Survivors:
    """Which values live on: those whose random number reaches ``threshold``; they grow by ``scale``."""

    numbers: Tensor
    threshold: int
    scale: float

    def factors(self, dtype: torch.dtype, part: slice = slice(None)) -> Tensor:
        """0 or ``scale`` for every value, of some rows of the first dimension."""
        numbers = self.numbers[part]
        # Compared straight into that type: by way of a bool tensor it takes three times as long.
        return torch.ge(numbers, self.threshold, out=torch.empty_like(numbers, dtype=dtype)).mul_(self.scale)


def draw(shape: torch.Size, probability: float) -> Survivors:
    """Which values of a tensor of ``shape`` on the CPU live on, by chance.

    ``probability`` [0, 1) is rounded to a multiple of 2^-16, and the scale is that of the rounded one.
    """
    dropped = min(round(probability * LEVELS), LEVELS - 1)
    count = shape.numel()
    numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return Survivors(
        numbers.view(torch.int16)[:count].view(shape), dropped - LEVELS // 2, LEVELS / (LEVELS - dropped)
    )


def chosen_here(x: Tensor) -> bool:
    """Whether this module draws for values like ``x``, rather than torch."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, probability: float) -> Tensor:
    """``x`` with values set to 0 at random and the others scaled so that the mean stays the same.

    On other devices than the CPU torch's kernel is a single pass, as is what its compiler makes of it.
    """
    if not chosen_here(x):
        return F.dropout(x, probability)
    return x * draw(x.shape, probability).factors(x.dtype)


class Dropout(nn.Dropout):
    """``nn.Dropout`` by ``dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training and self.p else input
