"""Averaged gradient episodic memory: no step may raise the loss on remembered images.

Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from iufbench.learning.buffer import BalancedBudget
from iufbench.learning.rehearsal import Rehearsal
from iufbench.models.uniad import reconstruction_loss


def without_conflict(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Tensor]:
    """The nearest gradient whose inner product with ``reference`` is not negative (equation 11).

    ``gradients`` and ``reference``: one tensor per parameter, taken together as one vector each.
    """
    inner = torch.stack([(g.double() * r.double()).sum() for g, r in zip(gradients, reference)]).sum()
    size = torch.stack([r.double().square().sum() for r in reference]).sum()
    # No branch on a device value: it would synchronise in every iteration.
    share = torch.where(inner < 0, inner / torch.where(size > 0, size, 1), 0)
    return [g - share.to(g) * r for g, r in zip(gradients, reference)]


class AGEM(Rehearsal):
    """Projects the gradient of new images when it points against that of a random batch of old ones."""

    @dataclass(frozen=True)
    class Options:
        memory: BalancedBudget = field(default_factory=BalancedBudget)

    def _before_update(self, **kwargs: Any) -> None:
        if self.mbatch.old:
            learning = [p for p in self.model.parameters() if p.grad is not None]
            output = self.model(self.mbatch.old["features"])
            reference = torch.autograd.grad(reconstruction_loss(output), learning)
            for parameter, allowed in zip(learning, without_conflict([p.grad for p in learning], reference)):
                parameter.grad = allowed
        super()._before_update(**kwargs)  # the norm is clipped afterwards: it keeps the direction
