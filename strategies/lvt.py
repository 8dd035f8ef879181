"""Lifelong Vision Transformer, transferred from classification to reconstruction.

Wang et al., "Continual Learning with Lifelong Vision Transformer", CVPR 2022. The card lists what was
transferred and what was not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iufbench.learning.buffer import BalancedBudget
from iufbench.learning.inter_task import InterTaskUniAD
from iufbench.learning.quadratic import HeldWeights, mean_over_images
from iufbench.learning.rehearsal import JointRehearsal
from iufbench.models.uniad import reconstruction_loss
from iufbench.support.fields import number


@dataclass(frozen=True)
class StoredAttention:
    """``strength`` of the penalty on learned keys and biases; ``samples``: images per experience used to
    estimate their importances (all if there are fewer).
    """

    strength: float = number(1.0, at_least=0)
    samples: int = number(256, at_least=1)


class LVT(HeldWeights, JointRehearsal):
    """Inter-task attention with a quadratic penalty, and rehearsal of the best reconstructed images."""

    @dataclass(frozen=True)
    class Options:
        memory: BalancedBudget = field(default_factory=BalancedBudget)
        attention: StoredAttention = field(default_factory=StoredAttention)

    decay = 0.0  # the importance of the last experience alone, as in the paper

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.strength = self.options.attention.strength

    def build_network(self) -> nn.Module:
        return InterTaskUniAD(**self.network_arguments())

    def held(self) -> dict[str, nn.Parameter]:
        return self.model.stored_attention()

    def measure(self) -> dict[str, Tensor]:
        images = self.some_images(self.options.attention.samples)
        data = self.experience.resident
        return mean_over_images(self.model, self.held(), data, images, reconstruction_loss, torch.abs)

    def preference(self) -> Tensor:
        """Images in ascending order of reconstruction error."""
        outputs = self.outputs(torch.arange(len(self.experience.resident)))
        errors = [(o.reconstruction - o.target).square().mean(dim=(1, 2, 3)) for o in outputs]
        return torch.cat(errors).cpu().argsort(stable=True)
