"""Dinomaly (Guo et al., CVPR 2025) as a continual learner: its decoder is trained experience by experience.

Its forgetting has not been published; the variants with replay and EWC show the effect of standard remedies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.buffer import BalancedBudget
from iufbench.learning.memory_bank import blur
from iufbench.learning.quadratic import HeldWeights, mean_over_images
from iufbench.learning.rehearsal import JointRehearsal
from iufbench.models import dinomaly
from iufbench.models.uniad import Reconstruction
from iufbench.support.fields import number


@dataclass(frozen=True)
class Mining:
    """``easy``: fraction of positions with gradients scaled by ``factor``, reached after fraction ``ramp``
    of an experience's iterations; ``smoothing``: standard deviation in pixels of the map's Gaussian blur, cut
    off at ``radius`` pixels."""

    easy: float = number(0.9, at_least=0, below=1)
    factor: float = number(0.1, at_least=0, at_most=1)
    ramp: float = number(0.1, at_least=0, at_most=1)
    smoothing: float = number(4.0, at_least=0)
    radius: int = number(2, at_least=1)


class Dinomaly(ReconstructionStrategy):
    not_captured: ClassVar[str | None] = "the share of easy positions grows from one iteration to the next"

    @dataclass(frozen=True)
    class Options:
        dinomaly: Mining = field(default_factory=Mining)

    def build_network(self) -> nn.Module:
        return dinomaly.Dinomaly(self.context.groups, **self.decoder_arguments())

    def decoder_arguments(self) -> dict[str, Any]:
        """Arguments of the network, from the card."""
        network = self.recipe.network
        return {
            "hidden": network.hidden,
            "heads": network.heads,
            "feedforward": network.feedforward,
            "layers": network.decoder_layers,
            "dropout": network.dropout,
            "standardise": network.standardise,
            "precision": self.context.precision,
        }

    def easy_share(self) -> float:
        """The fraction of positions that count as easy in this iteration."""
        given = self.options.dinomaly
        iterations = self.train_epochs * len(self.dataloader)
        ramp = given.ramp * iterations
        return given.easy * min(1.0, self.clock.train_exp_iterations / ramp) if ramp > 0 else given.easy

    def losses(self) -> dict[str, Tensor]:
        factor = self.options.dinomaly.factor
        loss = dinomaly.hard_mining_loss(self.mb_output, self.context.groups, self.easy_share(), factor)
        return {"reconstruction": loss}

    def anomaly_maps(self) -> Tensor:
        """1 - cosine, the mean over groups, upsampled and blurred."""
        distance = torch.stack(dinomaly.distances(self.mb_output, self.context.groups)).mean(dim=0)
        size = (self.context.map_size,) * 2
        maps = F.interpolate(distance[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
        return blur(maps, self.options.dinomaly.smoothing, self.options.dinomaly.radius)


class DinomalyReplay(JointRehearsal, Dinomaly):
    """Old images' features are appended to every mini-batch."""

    @dataclass(frozen=True)
    class Options:
        dinomaly: Mining = field(default_factory=Mining)
        memory: BalancedBudget = field(default_factory=BalancedBudget)


@dataclass(frozen=True)
class Held:
    """``samples``: images per experience used to estimate the Fisher information (all if fewer)."""

    strength: float = number(1.0, at_least=0)
    samples: int = number(256, at_least=1)


class DinomalyEWC(HeldWeights, Dinomaly):
    """Online EWC on the trainable part: importance is the squared gradient of the loss without mining."""

    @dataclass(frozen=True)
    class Options:
        dinomaly: Mining = field(default_factory=Mining)
        ewc: Held = field(default_factory=Held)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.strength = self.options.ewc.strength

    def measure(self) -> dict[str, Tensor]:
        def objective(output: Reconstruction) -> Tensor:
            return dinomaly.hard_mining_loss(output, self.context.groups, easy=0.0, factor=1.0)

        images = self.some_images(self.options.ewc.samples)
        data = self.experience.resident
        return mean_over_images(self.model, self.held(), data, images, objective, torch.square)
