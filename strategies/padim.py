"""PaDiM (Defard et al., "PaDiM: a Patch Distribution Modeling Framework", ICPR workshops 2020).

Every position has a Gaussian over a random subset of the channels; the anomaly score of a patch is its
Mahalanobis distance. Means and covariances are merged exactly across experiences: the order of images does
not matter, and no image is stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.context import Uses
from iufbench.learning.memory_bank import MemoryBank, Patches, entries_each
from iufbench.support.fields import number
from iufbench.support.seeding import derive


@dataclass(frozen=True)
class Gaussian:
    """``channels``: number of randomly chosen channels of the Gaussians (all if the backbone has no more);
    ``regularisation``: value added to the diagonal of every covariance; ``budget_bytes``: budget for the
    Gaussians of all memories together, whose size depends on ``channels`` alone: an error if exceeded."""

    channels: int = number(100, at_least=1)
    regularisation: float = number(0.01, above=0)
    budget_bytes: int = number(512 * 2**20, at_least=1)


class PaDiM(MemoryBank):
    """One Gaussian per position, for all objects together.

    The memory holds ``count`` (images), ``mean`` [L, d] and ``scatter`` [L, d, d] (the sum of squared
    deviations) of the L positions.
    """

    @dataclass(frozen=True)
    class Options:
        patches: Patches = field(default_factory=Patches)
        gaussian: Gaussian = field(default_factory=Gaussian)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        context = self.context
        seed = derive(context.seeds.memory, "channels")
        order = torch.randperm(context.channels, generator=torch.Generator().manual_seed(seed))
        self.channels = order[: self.options.gaussian.channels].sort().values.to(self.device)
        self._work: dict[int, dict[str, Tensor]] = {}
        self._factors: dict[int, tuple[Tensor, Tensor]] = {}  # (scatter that it is the factor of, factor)

    def see(self, key: int, patches: Tensor, vectors: Tensor | None) -> None:
        if key not in self._work:
            self._check_budget(len({key, *self.memory, *self._work}))
            old = self.memory.get(key, {})
            self._work[key] = {name: tensor.double() for name, tensor in old.items()}
        self._work[key] = merge(self._work[key], moments(self._chosen(patches)))

    def _check_budget(self, memories: int) -> None:
        positions, channels = math.prod(self.context.feature_size), len(self.channels)
        size, what = 4 * positions * channels * (channels + 1), f"Gaussian at each of {positions} positions"
        budget = self.options.gaussian.budget_bytes
        entries_each("gaussian.budget_bytes", budget, memories, size, 4, what)

    def settle(self) -> None:
        for key, parts in self._work.items():
            self.memory[key] = {name: tensor.float() for name, tensor in parts.items()}
        self._work.clear()
        self._factors.clear()

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._factors.clear()

    def distances(self, key: int, patches: Tensor) -> Tensor:
        scatter = self.memory[key]["scatter"]
        if key not in self._factors or self._factors[key][0] is not scatter:  # restored from a checkpoint
            self._factors[key] = scatter, self._factor(self.memory[key])
        deviation = self._chosen(patches) - self.memory[key]["mean"].double()
        # |L^-1 (x - mean)| with L L^T the covariance: [positions, channels, images].
        white = torch.linalg.solve_triangular(self._factors[key][1], deviation.permute(1, 2, 0), upper=False)
        distance = torch.linalg.vector_norm(white, dim=1).T
        return distance.float().view(len(patches), *patches.shape[2:])

    def _factor(self, parts: dict[str, Tensor]) -> Tensor:
        """Lower Cholesky factor [L, d, d] of every position's regularised covariance."""
        scatter, count = parts["scatter"].double(), parts["count"]
        covariance = scatter / (count - 1).clamp(min=1)
        covariance.diagonal(dim1=-2, dim2=-1).add_(self.options.gaussian.regularisation)
        return torch.linalg.cholesky(covariance)

    def _chosen(self, patches: Tensor) -> Tensor:
        """[B, L, d] float64 of patches [B, C, h, w]: the chosen channels of every position."""
        return patches[:, self.channels].flatten(2).transpose(1, 2).double()


class PaDiMPerObject(PaDiM):
    """Separate Gaussians per object; a test image is scored by those of the nearest object."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, gradients=False, routing=True)


def moments(x: Tensor) -> dict[str, Tensor]:
    """Count, mean [L, d] and scatter [L, d, d] of samples [B, L, d]."""
    mean = x.mean(dim=0)
    deviation = (x - mean).transpose(0, 1)
    return {
        "count": torch.tensor(float(len(x)), dtype=x.dtype, device=x.device),
        "mean": mean,
        "scatter": deviation.transpose(1, 2) @ deviation,
    }


def merge(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Combined moments of two sets of samples (Chan et al., 1979); ``old`` may be empty."""
    if not old:
        return new
    count = old["count"] + new["count"]
    step = new["mean"] - old["mean"]
    between = step[:, :, None] * step[:, None, :] * (old["count"] * new["count"] / count)
    return {
        "count": count,
        "mean": old["mean"] + step * (new["count"] / count),
        "scatter": old["scatter"] + new["scatter"] + between,
    }
