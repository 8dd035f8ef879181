"""Dark experience replay: remembered images are to be reconstructed as they were when they were stored.

Buzzega et al., "Dark Experience for General Continual Learning", NeurIPS 2020, with reconstructions in the
place of logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from iufbench.learning.buffer import BalancedBudget, Memory
from iufbench.learning.rehearsal import JointRehearsal
from iufbench.models.uniad import Reconstruction
from iufbench.support.fields import number


@dataclass(frozen=True)
class DarkExperience:
    """``alpha``: weight of the distance to stored reconstructions; ``beta``: of the ordinary loss on a second
    draw of remembered images (DER++; 0 for DER, which draws once).
    """

    alpha: float = number(0.5, at_least=0)
    beta: float = number(0.0, at_least=0)


class DER(JointRehearsal):
    """Stores features and the reconstructions that the network gave of them when their experience ended."""

    @dataclass(frozen=True)
    class Options:
        memory: BalancedBudget = field(default_factory=BalancedBudget)
        der: DarkExperience = field(default_factory=DarkExperience)

    maps_per_image: ClassVar[int] = 1

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._draws: list[Memory] = []

    def columns(self, chosen: Tensor) -> Memory:
        found = torch.cat([output.reconstruction for output in self.outputs(chosen)])
        return {**super().columns(chosen), "reconstructions": found.to("cpu", self.precision)}

    def forward(self) -> Reconstruction:
        x = self.mbatch.x
        replays = 0
        if self.is_training and self.memory:
            replays = 2 if self.options.der.beta > 0 else 1
        self._draws = [self.draw(len(x)) for _ in range(replays)]
        return self.network(torch.cat([x, *(drawn["features"] for drawn in self._draws)]))

    def losses(self) -> dict[str, Tensor]:
        weights, sizes = self.options.der, [len(drawn["features"]) for drawn in self._draws]
        found = self.mb_output.reconstruction.split([len(self.mbatch), *sizes])
        target = self.mb_output.target.split([len(self.mbatch), *sizes])
        terms = {"reconstruction": F.mse_loss(found[0], target[0])}
        if sizes:
            terms["dark"] = weights.alpha * F.mse_loss(found[1], self._draws[0]["reconstructions"])
        if len(sizes) > 1:
            terms["replay"] = weights.beta * F.mse_loss(found[2], target[2])
        return terms
