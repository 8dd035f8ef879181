"""Semantic compression: compress the features of the objects so far into few directions (IUF, ECCV 2024).

Both losses use the singular values of decoder features averaged over tokens (one row per image), divided by
their sum, and penalise the small ones, which leaves capacity for new objects.

Singular values are computed from eigenvalues of Gram matrices R^T R in float64, for all layers at once.
Values and gradients agree with ``svdvals`` of the rows to 1e-6 if singular values span up to four decades,
in half the time, because only the rows of the current batch have to be multiplied (``RecentRows``). Only
eigenvalues are differentiated, never vectors, so repeated and zero values, too few rows and even all-zero
features give finite gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def semantic_compression(gram: Tensor, ratio: float, reference: int = 256) -> Tensor:
    """The released code's form: sum of the normalised singular values strictly below ``ratio / reference``.

    Args:
        gram: float64 [L, E, E], the Gram matrix of every layer's rows.
        ratio: Upper limit, relative to ``1 / reference``.
        reference: 256 in the released code, independent of E.

    Returns:
        The mean over layers, a scalar in [0, 1]; 0, without gradient, if no value is that small, which is
        usual for full-rank features at the released ratio of 0.1.
    """
    values = normalised_singular_values(gram)
    return (values * (values.detach() < ratio / reference)).sum(dim=1).mean()


def tail_singular_values(gram: Tensor, first: int) -> Tensor:
    """The published form: sum of the normalised singular values after the ``first`` strongest.

    Args:
        gram: float64 [L, E, E], the Gram matrix of every layer's rows.
        first: at least 0.

    Returns:
        The mean over layers, a scalar in [0, 1]; 0 when there are no more than ``first`` rows.

    Raises:
        ValueError: for a negative ``first``.
    """
    if first < 0:
        raise ValueError(f"first = {first} must not be negative")
    return normalised_singular_values(gram)[:, first:].sum(dim=1).mean()


def normalised_singular_values(gram: Tensor) -> Tensor:
    """Singular values of the rows of ``gram`` [L, E, E], divided by their sum: float64 [L, E], descending.

    Values below the rounding noise of the largest eigenvalue are 0 and have no gradient.
    """
    eigenvalues = torch.linalg.eigvalsh(gram).flip(1)
    noise = gram.shape[-1] * torch.finfo(gram.dtype).eps * eigenvalues[:, :1].detach()
    real = eigenvalues > noise
    values = torch.where(real, torch.where(real, eigenvalues, 1).sqrt(), 0)  # no 0/0 in the gradient
    total = values.sum(dim=1, keepdim=True)
    return values / torch.where(total > 0, total, 1)


def gram_matrices(rows: Sequence[Tensor] | Tensor) -> Tensor:
    """float64 [L, E, E]: R^T R of rows [N, E] of every layer; exact in float64, under any autocast."""
    with torch.autocast(rows[0].device.type, enabled=False):
        stacked = torch.stack([layer.double() for layer in rows])
        return stacked.transpose(1, 2) @ stacked


class RecentRows:
    """The rows of the latest batches, at most ``limit``, and their Gram matrices.

    ``batches``: one [L, B, E] each, without gradient, oldest first.
    """

    def __init__(self, limit: int, batches: Iterable[Tensor] = ()) -> None:
        self.limit = limit
        self.batches = deque(batches)
        self._gram: Tensor | None = None
        self.refresh()

    def refresh(self) -> None:
        """Recompute the Gram matrices from the rows: updates accumulate rounding errors."""
        self._gram = gram_matrices(torch.cat(list(self.batches), dim=1)) if self.batches else None

    def with_new(self, rows: Sequence[Tensor]) -> Tensor:
        """Gram matrices of the kept rows and ``rows`` [B, E] of every layer, differentiable in ``rows``.

        ``rows`` are kept for the next call.
        """
        new = gram_matrices(rows)
        result = new if self._gram is None else self._gram + new
        self.batches.append(torch.stack([layer.detach() for layer in rows]))
        self._gram = result.detach()
        while sum(batch.shape[1] for batch in self.batches) > self.limit:
            self._gram = self._gram - gram_matrices(self.batches.popleft())
        if not self.batches:
            self._gram = None
        return result
