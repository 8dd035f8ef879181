"""Nearest neighbours and greedy coresets in bounded memory, for memory banks.

PatchCore (Roth et al., CVPR 2022) keeps a subset of all patch features such that every patch is close to
a kept one, found by farthest-point selection (k-centre greedy).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MATRIX_BYTES = 64 * 2**20  # default size limit of a distance matrix
_CANDIDATES = 256  # farthest points examined together by the greedy selection


def nearest(queries: Tensor, bank: Tensor, matrix_bytes: int = MATRIX_BYTES) -> tuple[Tensor, Tensor]:
    """Find nearest neighbours in Euclidean distance.

    Args:
        queries: [n, C].
        bank: [m, C], m > 0.
        matrix_bytes: Size limit of a distance matrix, which is computed in parts.

    Returns:
        Distance [n] to and index [n] of the nearest row of ``bank`` for each query.

    Raises:
        ValueError: ``bank`` is empty.

    >>> nearest(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [7.0]]))
    (tensor([1., 2.]), tensor([0, 1]))
    """
    if len(bank) == 0:
        raise ValueError("an empty bank has no nearest row")
    size = queries.element_size()
    columns = min(len(bank), max(1, int((matrix_bytes / size) ** 0.5)))
    rows = max(1, matrix_bytes // (size * columns))
    norms = bank.square().sum(dim=1)
    index = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        best = torch.full((len(part),), torch.inf, dtype=queries.dtype, device=queries.device)
        where = torch.zeros(len(part), dtype=torch.int64, device=queries.device)
        for first in range(0, len(bank), columns):
            # |q|^2 is the same for all rows of the bank, so comparisons do not need it.
            matrix = torch.addmm(
                norms[first : first + columns], part, bank[first : first + columns].T, alpha=-2
            )
            value, column = matrix.min(dim=1)
            closer = value < best
            best = torch.where(closer, value, best)
            where = torch.where(closer, column + first, where)
        index[start : start + rows] = where
    return _distances(queries, bank, index, rows), index


def squared_distances(queries: Tensor, bank: Tensor, count: int, matrix_bytes: int = MATRIX_BYTES) -> Tensor:
    """Squared Euclidean distances to the nearest rows of a bank.

    Args:
        queries: [n, C].
        bank: [m, C].
        count: Number of neighbours.
        matrix_bytes: Size limit of a distance matrix, which is computed in parts.

    Returns:
        [n, k], ascending, with k = min(count, m).
    """
    k, norms = min(count, len(bank)), bank.square().sum(dim=1)
    rows = max(1, matrix_bytes // (queries.element_size() * max(len(bank), k * bank.shape[1])))
    parts = []
    for part in queries.split(rows):
        index = torch.addmm(norms, part, bank.T, alpha=-2).topk(k, dim=1, largest=False).indices
        parts.append((part[:, None] - bank[index]).square().sum(dim=2))
    return torch.cat(parts) if parts else queries.new_zeros(0, k)


def _distances(queries: Tensor, bank: Tensor, index: Tensor, rows: int) -> Tensor:
    """[n]: distances to the given bank rows by subtraction, without the cancellation of the product form."""
    parts = [
        torch.linalg.vector_norm(q - bank[i], dim=1) for q, i in zip(queries.split(rows), index.split(rows))
    ]
    return torch.cat(parts) if parts else queries.new_zeros(0)


def greedy_coreset(
    points: Tensor,
    count: int,
    centres: Tensor | None = None,
    first: int = 0,
    matrix_bytes: int = MATRIX_BYTES,
) -> Tensor:
    """Select a coreset by farthest-point selection (k-centre greedy).

    The selection is exact: candidates are examined in groups only as long as no point outside the group can
    be farther away. The first k indices are the coreset of size k, so a coreset is shrunk by truncation.

    Args:
        points: [n, C].
        count: Size of the coreset, at most n.
        centres: [m, C], points that count as already selected.
        first: The first point if there are no ``centres``.
        matrix_bytes: Size limit of a distance matrix.

    Returns:
        int64 [count]: indices of points, each the farthest from all selected before.
    """
    count = min(count, len(points))
    if count <= 0:
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    chosen: list[int] = []
    if centres is not None and len(centres):
        squared = nearest(points, centres, matrix_bytes)[0].square()
    else:
        squared = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
        chosen.append(first)
        _approach(squared, points, points[[first]], matrix_bytes)
        squared[first] = -1
    while len(chosen) < count:
        top = squared.topk(min(_CANDIDATES + 1, len(points)))
        group = top.indices[:_CANDIDATES]
        # Distances only shrink: whatever is outside the group stays at most this far away.
        outside = float(top.values[_CANDIDATES]) if len(top.values) > _CANDIDATES else -1.0
        mutual = torch.cdist(points[group], points[group]).square().cpu().numpy()
        picked = _pick(top.values[:_CANDIDATES].cpu().numpy(), mutual, outside, count - len(chosen))
        new = group[torch.as_tensor(picked, device=group.device)]
        _approach(squared, points, points[new], matrix_bytes)
        squared[new] = -1
        chosen += new.tolist()
    return torch.tensor(chosen, dtype=torch.int64, device=points.device)


def _pick(squared: np.ndarray, mutual: np.ndarray, outside: float, limit: int) -> list[int]:
    """Farthest-point selection within a group, ended where a point outside might be farther."""
    squared = squared.copy()
    picked: list[int] = []
    while len(picked) < limit:
        best = int(squared.argmax())
        if squared[best] < outside or squared[best] < 0:
            break
        picked.append(best)
        squared = np.minimum(squared, mutual[best])
        squared[best] = -1
    return picked


def _approach(squared: Tensor, points: Tensor, centres: Tensor, matrix_bytes: int) -> None:
    """Lower ``squared`` [n], in place, to the squared distance to the nearest of a few new centres."""
    rows = max(1, matrix_bytes // (points.element_size() * len(centres)))
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        matrix = torch.cdist(points[part], centres).square_()
        torch.minimum(squared[part], matrix.min(dim=1).values, out=squared[part])
