"""IUF's update strategy: update weights in directions unused by old objects, and stay near the old weights.

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
    """All rows seen of one layer, kept as their triangular QR factor.

    ``factor`` [r, E], r = min(rows, E), float32: it has the singular values and right singular vectors of all
    rows together, in at most 4 E^2 bytes. ``rows``: how many rows went in.
    """

    factor: Tensor
    rows: int

    @classmethod
    def of(cls, rows: Tensor) -> FeatureMatrix:
        """From ``rows`` [N, E]; not centred."""
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"feature rows are {list(rows.shape)}, not [N, E] with N > 0")
        return cls(_triangle(rows), len(rows))

    def merge(self, rows: Tensor) -> FeatureMatrix:
        """With the rows [N, E] of further objects below the old ones."""
        old = self.factor.to(rows.device)
        return FeatureMatrix(_triangle(torch.cat([old.double(), rows.double()])), self.rows + len(rows))

    def projection(self, power: float = 1.0) -> Tensor:
        """The projection [E, E] these features ask for, as ``projection_matrix``."""
        return projection_matrix(self.factor, power)


def _triangle(rows: Tensor) -> Tensor:
    """R of rows = Q R; double, because merging happens once per experience over a whole stream."""
    return torch.linalg.qr(rows.detach().double(), mode="r").R.float()


def direction_weights(channels: int) -> Tensor:
    """d_k = log(1 + k) / log(E) for k = 0..E-1, float64 [E]: the strongest direction is held."""
    return torch.arange(1, channels + 1, dtype=torch.float64).log() / math.log(channels)


def projection_matrix(rows: Tensor, power: float = 1.0) -> Tensor:
    """P [E, E] = V^T diag(d ** power) V from feature rows [N, E] (or their triangular factor), float32.

    ``power`` is the strength: 1 is the paper's Omega, above it more is held, below it less; 0 holds nothing.

    The rows of V are the right singular vectors by falling singular value. Directions in which no image ever
    put anything (fewer rows than channels, or a zero singular value) are free: weight 1. The sign of singular
    vectors does not matter to P.
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
    """theta <- rate * old + (1 - rate) * theta for every parameter, in place.

    ``old_state``: a state dict of the model before the experience. A parameter that has gained rows since (a
    grown classifier) is pulled in the rows that it had. ``include_buffers`` pulls buffers as well, integer
    ones truncated, as the released code does with BatchNorm's statistics and step counter; entries whose
    names begin with one of ``prefixes_left_alone`` are not pulled. Raises KeyError when the old state lacks
    an entry.
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
