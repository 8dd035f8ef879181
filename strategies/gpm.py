"""Gradient projection memory: layers learn only in directions orthogonal to the inputs of old objects.

Saha, Garg and Roy, "Gradient Projection Memory for Continual Learning", ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.subspaces import grown_basis, linear_sites, project_, watched_inputs
from iufbench.support.fields import number
from iufbench.support.seeding import derive


@dataclass(frozen=True)
class ProjectionMemory:
    """``energy``: fraction of the inputs' squared norm that each layer's subspace captures. ``samples``:
    images per experience used to estimate it (all if there are fewer). ``freeze_rest``: freeze parameters
    outside linear layers (LayerNorm, queries, positions) after the first experience.
    """

    energy: float = number(0.97, at_least=0, at_most=1)
    samples: int = number(128, at_least=1)
    freeze_rest: bool = True


class GPM(ReconstructionStrategy):
    """``bases``: for each linear map, an orthonormal basis of the old objects' inputs.

    Both the gradient and the optimiser's step are projected, because AdamW's element-wise scaling and weight
    decay would leave the allowed subspace.
    """

    @dataclass(frozen=True)
    class Options:
        gpm: ProjectionMemory = field(default_factory=ProjectionMemory)

    carried: ClassVar[tuple[str, ...]] = ("bases",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.bases: dict[str, Tensor] = {}
        self._sites = linear_sites(self.model)
        self._linear = {n for site in self._sites.values() for n in (site.weight, site.bias)}
        self._before: dict[str, Tensor] = {}

    def _before_update(self, **kwargs: Any) -> None:
        if self.bases:
            parameters = dict(self.model.named_parameters())
            project_({n: parameters[n].grad for n in self._linear}, self._sites, self.bases)
            for name, parameter in parameters.items():
                if self.options.gpm.freeze_rest and name not in self._linear:
                    parameter.grad = None
            self._before = {n: parameters[n].detach().clone() for n in self._linear}
        super()._before_update(**kwargs)

    @torch.no_grad()
    def _after_update(self, **kwargs: Any) -> None:
        if self.bases:
            parameters = dict(self.model.named_parameters())
            steps = {n: parameters[n] - before for n, before in self._before.items()}
            project_(steps, self._sites, self.bases)
            for name, step in steps.items():
                parameters[name].copy_(self._before[name] + step)
        super()._after_update(**kwargs)

    @torch.no_grad()
    def _after_training_exp(self, **kwargs: Any) -> None:
        data = self.experience.resident
        seed = derive(self.context.seeds.memory, "inputs", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        images = torch.randperm(len(data), generator=generator)[: self.options.gpm.samples]
        self.model.eval()
        with watched_inputs(self.model) as moments:
            for part in images.split(self.eval_mb_size):
                self.model(data.batch(part).to(self.device).x)
        self.model.train()
        energy = self.options.gpm.energy
        self.bases = {n: grown_basis(self.bases.get(n), m, energy) for n, m in moments.items()}
        super()._after_training_exp(**kwargs)
