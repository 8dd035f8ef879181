"""Memory aware synapses: importance is the sensitivity of the network's output to a weight.

Aljundi et al., "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018. Needs no labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from iufbench.learning.quadratic import HeldWeights, mean_over_images
from iufbench.models.uniad import Reconstruction
from iufbench.support.fields import number


def squared_output(output: Reconstruction) -> Tensor:
    """Squared Euclidean norm of the reconstruction, summed over the batch."""
    return output.reconstruction.square().sum()


@dataclass(frozen=True)
class Synapses:
    """``samples``: images per experience used to estimate importances (all if there are fewer)."""

    strength: float = number(0.1, at_least=0)
    samples: int = number(256, at_least=1)


class MAS(HeldWeights):
    """Importances are the mean per-image absolute gradients of the squared output norm."""

    @dataclass(frozen=True)
    class Options:
        mas: Synapses = field(default_factory=Synapses)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.strength = self.options.mas.strength

    def measure(self) -> dict[str, Tensor]:
        images = self.some_images(self.options.mas.samples)
        data = self.experience.resident
        return mean_over_images(self.model, self.held(), data, images, squared_output, torch.abs)
