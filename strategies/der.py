"""Dark experience replay: remembered images are to be reconstructed as they were when they were stored.

Buzzega et al., "Dark Experience for General Continual Learning", NeurIPS 2020, with reconstructions in the
place of logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from iufbench.learning.buffer import BalancedBudget, Memory
from iufbench.learning.rehearsal import JointRehearsal
from iufbench.support.fields import number


@dataclass(frozen=True)
class DarkExperience:
    """``alpha``: weight of the distance to stored reconstructions; ``beta``: of the ordinary loss on the
    remembered images (DER++; 0 for DER).
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

    def columns(self, chosen: Tensor) -> Memory:
        found = torch.cat([output.reconstruction for output in self.outputs(chosen)])
        return {**super().columns(chosen), "reconstructions": found.to("cpu", self.precision)}

    def losses(self) -> dict[str, Tensor]:
        new, weights = len(self.mbatch), self.options.der
        found, target = self.mb_output.reconstruction, self.mb_output.target
        terms = {"reconstruction": F.mse_loss(found[:new], target[:new])}
        if self.drawn:
            terms["dark"] = weights.alpha * F.mse_loss(found[new:], self.drawn["reconstructions"])
            terms["replay"] = weights.beta * F.mse_loss(found[new:], target[new:])
        return terms
