"""Dropout that does not spend a quarter of a training step on random numbers.

On the CPU torch draws a 64-bit random number for every value; here one is enough for four values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


def dropout(x: Tensor, probability: float) -> Tensor:
    """``x`` with values set to 0 at random and the others scaled so that the mean stays the same.

    On the CPU ``probability`` [0, 1) is rounded to a multiple of 2^-16, and the scale is that of the rounded
    one. On other devices torch's kernel is a single pass, and is used.
    """
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    dropped = min(round(probability * LEVELS), LEVELS - 1)
    if not dropped:
        return x
    count = x.numel()
    numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = numbers.view(torch.int16)[:count].view(x.shape) >= dropped - LEVELS // 2
    return x * keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """``nn.Dropout`` by ``dropout``."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p) if self.training and self.p else input
