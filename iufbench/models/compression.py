"""Semantic compression: compress the features of the objects so far into few directions (IUF, ECCV 2024).

Both losses use the singular values of decoder features averaged over tokens (one row per image), divided by
their sum, and penalise the small ones, which leaves capacity for new objects.

Singular values are computed from eigenvalues of Gram matrices R^T R in float64, for all layers at once.
Values and gradients agree with ``svdvals`` of the rows to 1e-6 if singular values span up to four decades,
in half the time, because only the rows of the current batch have to be multiplied (``RecentRows``). Only
eigenvalues are differentiated, never vectors, so repeated and zero values, too few rows and even all-zero
features give finite gradients.

Eigenvalues on a GPU make the CPU wait for it, so they cannot be captured. ``tail_by_products`` computes the
published form with a fixed number of matrix products, which can be (``StaticRows``). It needs all rows and 20
billion float64 operations for three layers of 792x256, so it is for GPUs with fast float64 only; singular
values may span six decades.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST = 1e-7  # relative to the norm of the rows: smaller singular values fade out in ``tail_by_products``
PURIFICATIONS = 64  # resolve neighbouring singular values that differ by 0.1 %, at 1e-4 of the largest


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


def tail_by_products(rows: Tensor, first: int) -> Tensor:
    """``tail_singular_values`` by matrix products only, without waiting for the device.

    The sum of all singular values and its gradient come from the polar factor U V^T of the rows (scaled
    Newton-Schulz iteration), the part of the ``first`` strongest from the projector onto their directions,
    which is the limit of X^2 and 2 X - X^2, chosen by the trace (second-order spectral projection, Niklasson
    2002), started at the symmetric factor (R^T R)^(1/2). If the values at both sides of ``first`` are closer
    than ``PURIFICATIONS`` resolves, the projector, and so the gradient, is a mixture of both of their
    directions; the value is accurate in any case.

    Args:
        rows: float64 [L, N, E], all rows of every layer.
        first: at least 0.

    Returns:
        As ``tail_singular_values``, differentiable once.

    Raises:
        ValueError: for a negative ``first``.
    """
    if first < 0:
        raise ValueError(f"first = {first} must not be negative")
    result: Tensor = _TailByProducts.apply(rows, first)
    return result


class _TailByProducts(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, first: int) -> Tensor:
        if min(rows.shape[1:]) <= first:
            context.save_for_backward(torch.zeros_like(rows))
            return rows.new_zeros(())
        with torch.autocast(rows.device.type, enabled=False):
            polar = _polar_factor(rows)
            tail = polar - polar @ _onto_strongest(polar.mT @ rows, first)
        total = (polar * rows).sum(dim=(1, 2), keepdim=True)
        share = (tail * rows).sum(dim=(1, 2), keepdim=True) / torch.where(total > 0, total, 1)
        gradient = (tail - share * polar) / torch.where(total > 0, total, torch.inf)
        context.save_for_backward(gradient / len(rows))
        return share.clamp_min(0).mean()

    @staticmethod
    @once_differentiable
    def backward(context: Any, outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = context.saved_tensors
        return outer * gradient, None


def _polar_factor(rows: Tensor) -> Tensor:
    """U V^T of rows U S V^T, [L, N, E]; without the directions whose singular values are 0."""
    found = rows / _norms(rows)
    low = SMALLEST  # singular values are between it and 1
    while low < 1 - 1e-9:
        scale = (3 / (1 + low + low**2)) ** 0.5  # moves both ends to the same distance from 1
        found = torch.baddbmm(found, found, found.mT @ found, beta=1.5 * scale, alpha=-0.5 * scale**3)
        low = scale * low * (3 - scale**2 * low**2) / 2
    return found


def _onto_strongest(symmetric: Tensor, count: int) -> Tensor:
    """The projector onto the ``count`` strongest directions of positive semidefinite matrices [L, E, E]."""
    # Moved above 0 by more than rounding, which would double an eigenvalue below 0 in every iteration.
    floor = 1e-13 * torch.eye(symmetric.shape[-1], dtype=symmetric.dtype, device=symmetric.device)
    found = (symmetric + symmetric.mT) / (2 * _norms(symmetric)) + floor
    for _ in range(PURIFICATIONS):
        squared = found @ found
        trace = _traces(found)
        # X^2 or 2 X - X^2, whichever has the trace that is closer to count: rounding errors decrease as well.
        choice = (trace - _traces(squared)) * (trace - count)
        found = torch.lerp(found, squared, choice.sign())
    return found


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]


def _norms(matrices: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    return torch.where(norms > 0, norms, 1)


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
        self.reset(batches)

    def reset(self, batches: Iterable[Tensor] = ()) -> None:
        """Keep these batches only."""
        self.batches = deque(batches)
        self._gram: Tensor | None = None

    def refresh(self) -> None:
        """Recompute the Gram matrices from the rows when needed: updates accumulate rounding errors."""
        self._gram = None

    def with_new(self, rows: Sequence[Tensor]) -> Tensor:
        """Gram matrices of the kept rows and ``rows`` [B, E] of every layer, differentiable in ``rows``.

        ``rows`` are kept for the next call.
        """
        result = gram_matrices(rows)
        if self._gram is None and self.batches:
            self._gram = gram_matrices(torch.cat(list(self.batches), dim=1))
        if self._gram is not None:
            result = self._gram + result
        gram = result.detach()
        self.batches.append(torch.stack([layer.detach() for layer in rows]))
        while sum(batch.shape[1] for batch in self.batches) > self.limit:
            gram = gram - gram_matrices(self.batches.popleft())
        self._gram = gram if self.batches else None
        return result


class StaticRows:
    """As ``RecentRows``, for ``tail_by_products`` in a captured iteration: the rows are in fixed memory.

    They are at its end, in order; the rest is 0, which adds no singular value but 0. The iteration reads
    ``joined``; ``keep`` is called after it.
    """

    def __init__(self, limit: int, batches: Iterable[Tensor] = ()) -> None:
        self.limit = limit
        self._rows: Tensor | None = None
        self._sizes: deque[int] = deque()
        self.reset(batches)

    @property
    def batches(self) -> list[Tensor]:
        """Copies of the kept batches, [L, B, E] each, oldest first."""
        if self._rows is None:
            return []
        sizes = [self.limit - sum(self._sizes), *self._sizes]
        return [part.clone() for part in self._rows.split(sizes, dim=1)[1:]]

    def reset(self, batches: Iterable[Tensor] = ()) -> None:
        """Keep these batches only, in the same memory."""
        self._sizes.clear()
        for batch in batches:
            self.keep(batch)
        self._clear()

    def refresh(self) -> None:
        """Nothing accumulates: every iteration starts from the rows."""

    def joined(self, rows: Sequence[Tensor]) -> Tensor:
        """The kept rows and ``rows`` [B, E] of every layer, float64 [L, limit + B, E], differentiable."""
        new = torch.stack(list(rows)).double()
        return new if self._rows is None else torch.cat([self._rows.double(), new], dim=1)

    def keep(self, batch: Tensor) -> None:
        """Keep a batch [L, B, E] without gradient; the oldest ones are removed if there are too many rows."""
        layers, size, width = batch.shape
        if self._rows is None:
            self._rows = batch.new_zeros(layers, self.limit, width)
        self._rows.copy_(torch.cat([self._rows, batch], dim=1)[:, size:])
        self._sizes.append(size)
        while sum(self._sizes) > self.limit:
            self._sizes.popleft()
        self._clear()

    def _clear(self) -> None:
        """Set the unused rows to 0."""
        if self._rows is not None:
            self._rows[:, : self.limit - sum(self._sizes)] = 0
