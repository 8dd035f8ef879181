"""Dark experience replay: stored images must keep the reconstructions they had when they were stored.

Buzzega et al., "Dark Experience for General Continual Learning", NeurIPS 2020, with reconstructions instead
of logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

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
    """Stores features and the network's reconstructions of them at the end of their experience."""

    @dataclass(frozen=True)
    class Options:
        memory: BalancedBudget = field(default_factory=BalancedBudget)
        der: DarkExperience = field(default_factory=DarkExperience)

    maps_per_image: ClassVar[int] = 1

    def columns(self, chosen: Tensor) -> Memory:
        found = torch.cat([output.reconstruction for output in self.outputs(chosen)])
        home = self.experience.resident.features.device
        return {**super().columns(chosen), "reconstructions": found.to(home, self.precision)}

    def shown_again(self) -> Memory:
        old = super().shown_again()
        return (
            {**old, "others": self.draw(len(self.mbatch))["features"]} if self.options.der.beta > 0 else old
        )

    def forward(self) -> Reconstruction:
        old = self.mbatch.old
        shown = [self.mbatch.x, *(old[name] for name in ("features", "others") if name in old)]
        return self.network(torch.cat(shown))

    def losses(self) -> dict[str, Tensor]:
        weights, old, new = self.options.der, self.mbatch.old, len(self.mbatch)
        sizes = [new, *(len(old[name]) for name in ("features", "others") if name in old)]
        found, target = self.mb_output.reconstruction.split(sizes), self.mb_output.target.split(sizes)
        terms = {"reconstruction": F.mse_loss(found[0], target[0])}
        if old:
            terms["dark"] = weights.alpha * F.mse_loss(found[1], old["reconstructions"])
        if "others" in old:
            terms["replay"] = weights.beta * F.mse_loss(found[2], target[2])
        return terms
