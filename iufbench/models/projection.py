"""IUF's update strategy: change weights in directions unused by old objects, and stay near the old weights.

Feature matrices hold, per layer, its outputs for the old objects' images (token means, one row per image).
Gradients are attenuated along their strong directions and unchanged along weak ones. Tang et al.,
"An Incremental Unified Framework for Small Defect Inspection", ECCV 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureMatrix:
    """All feature rows of a layer, reduced to their triangular QR factor.

    Attributes:
        factor: float32 [r, E], r = min(rows, E), with the singular values and right singular vectors of all
            rows in at most 4 E^2 bytes.
        rows: Number of rows.
    """

    factor: Tensor
    rows: int

    @classmethod
    def of(cls, rows: Tensor) -> FeatureMatrix:
        """Reduce ``rows`` [N, E], which are not centred."""
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"feature rows are {list(rows.shape)}, not [N, E] with N > 0")
        return cls(_triangle(rows), len(rows))

    def merge(self, rows: Tensor) -> FeatureMatrix:
        """Append the rows [N, E] of further objects."""
        old = self.factor.to(rows.device)
        return FeatureMatrix(_triangle(torch.cat([old.double(), rows.double()])), self.rows + len(rows))

    def projection(self, power: float = 1.0) -> Tensor:
        """The projection [E, E] for these features (``projection_matrix``)."""
        return projection_matrix(self.factor, power)


def _triangle(rows: Tensor) -> Tensor:
    """R of rows = Q R; in double precision, because rows are merged once per experience."""
    return torch.linalg.qr(rows.detach().double(), mode="r").R.float()


def direction_weights(channels: int) -> Tensor:
    """d_k = log(1 + k) / log(E) for k = 0..E-1, float64 [E]: the strongest direction has weight 0.

    >>> direction_weights(4)
    tensor([0.0000, 0.5000, 0.7925, 1.0000], dtype=torch.float64)
    """
    return torch.arange(1, channels + 1, dtype=torch.float64).log() / math.log(channels)


def projection_matrix(rows: Tensor, power: float = 1.0) -> Tensor:
    """IUF's projection P = V^T diag(d ** power) V.

    The rows of V are the right singular vectors in descending order of singular values, d their
    ``direction_weights``. Unused directions (fewer rows than channels, or a zero singular value) have
    weight 1. P does not depend on the sign of singular vectors.

    Args:
        rows: Feature rows [N, E], or their triangular factor.
        power: Strength: 1 is the paper's Omega, a larger value protects more, 0 protects nothing.

    Returns:
        P, float32 [E, E].
    """
    channels = rows.shape[1]
    _, values, vectors = torch.linalg.svd(rows.double(), full_matrices=False)
    # Rows come from float32 arithmetic: below this, a direction is rounding noise.
    noise = values[0] * max(rows.shape) * torch.finfo(torch.float32).eps
    vectors = vectors[values > noise]
    held = 1 - direction_weights(channels).pow(power)[: len(vectors)].to(rows.device)
    identity = torch.eye(channels, dtype=torch.float64, device=rows.device)
    return (identity - vectors.T @ (held[:, None] * vectors)).float()


@torch.no_grad()
def project_gradients(model: nn.Module, projections: Mapping[str, Tensor]) -> None:
    """Replace the gradients of the named linear layers by P times them (weight [E, D] and bias [E]).

    Call it between ``backward`` and the optimiser's step. Layers without a gradient are skipped.
    """
    for name, projection in projections.items():
        for parameter in model.get_submodule(name).parameters(recurse=False):
            if parameter.grad is not None:
                parameter.grad.copy_(projection.to(parameter.grad) @ parameter.grad)


@torch.no_grad()
def pull_(
    model: nn.Module,
    old_state: Mapping[str, Tensor],
    rate: float,
    include_buffers: bool = False,
    prefixes_left_alone: tuple[str, ...] = (),
) -> None:
    """Pull a model towards an old state in place: theta <- rate * old + (1 - rate) * theta.

    Args:
        model: The model. A parameter with more rows than before (a grown classifier) is pulled in its old
            rows only.
        old_state: Its state dict before the experience.
        rate: In [0, 1].
        include_buffers: Also pull buffers, truncating integers, as the released code does with BatchNorm's
            statistics and step counter.
        prefixes_left_alone: Prefixes of names that are not pulled.

    Raises:
        KeyError: The old state lacks an entry.
    """
    current: list[Tensor] = []
    old: list[Tensor] = []
    entries = dict(model.named_parameters())
    if include_buffers:
        entries = model.state_dict(keep_vars=True)
    for name, now in entries.items():
        if name.startswith(prefixes_left_alone):
            continue
        before = old_state[name].to(now.device)
        if not now.is_floating_point():
            now.copy_((rate * before.double() + (1 - rate) * now.double()).trunc())
            continue
        current.append(now.detach() if now.ndim == 0 else now.detach()[: len(before)])
        old.append(before)
    torch._foreach_lerp_(current, old, rate)
