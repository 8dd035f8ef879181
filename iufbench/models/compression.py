"""Semantic compression: squeeze what the objects so far need into few directions (IUF, ECCV 2024).

Both losses look at the singular values of decoder features averaged over tokens, one row per image, divided
by their sum, and penalise the small ones: the room that they free is left for new objects.

Gradients: only singular values are differentiated, never vectors, so repeated and zero values, too few
rows and even all-zero features give finite gradients. Computed in float32 under any autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def semantic_compression(token_means: Sequence[Tensor], ratio: float, reference: int = 256) -> Tensor:
    """The released code's form: sum of the normalised singular values strictly below ``ratio / reference``.

    ``token_means``: one [N, E] per decoder layer; the mean over layers is returned (scalar in [0, 1]). The
    reference stays 256 whatever E is. It is 0, without gradient, when no value is that small, which is usual
    for full-rank features at the released ratio of 0.1.
    """
    losses = []
    for rows in token_means:
        values = normalised_singular_values(rows)
        losses.append((values * (values.detach() < ratio / reference)).sum())
    return torch.stack(losses).mean()


def tail_singular_values(token_means: Sequence[Tensor], first: int) -> Tensor:
    """The published form: sum of the normalised singular values after the ``first`` strongest.

    ``token_means``: one [N, E] per decoder layer; the mean over layers is returned (scalar in [0, 1]). It
    is 0 when there are no more than ``first`` rows: collect enough of them.
    """
    if first < 0:
        raise ValueError(f"first = {first} must not be negative")
    return torch.stack([normalised_singular_values(rows)[first:].sum() for rows in token_means]).mean()


def normalised_singular_values(rows: Tensor) -> Tensor:
    """Singular values of ``rows`` [N, E] divided by their sum: [min(N, E)], falling; zeros for zero rows."""
    with torch.autocast(rows.device.type, enabled=False):
        values = torch.linalg.svdvals(rows if rows.dtype == torch.float64 else rows.float())
        total = values.sum()
        return values / torch.where(total > 0, total, 1)
