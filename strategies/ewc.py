"""Elastic weight consolidation: importance is the diagonal of the Fisher information.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017; the online form is
that of Schwarz et al., "Progress & Compress", ICML 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from iufbench.learning.quadratic import HeldWeights, mean_over_images
from iufbench.models.uniad import reconstruction_loss
from iufbench.support.fields import number


@dataclass(frozen=True)
class Consolidation:
    """``form``: ``separate`` keeps weights and importances of every experience (memory grows), ``online`` one
    of each, with old importances multiplied by ``decay``. ``samples``: images per experience used to estimate
    the Fisher information (all if there are fewer).
    """

    strength: float = number(0.1, at_least=0)
    samples: int = number(256, at_least=1)
    form: Literal["separate", "online"] = "separate"
    decay: float = number(1.0, at_least=0, at_most=1)


class EWC(HeldWeights):
    """Importances are the mean per-image squared gradients of the reconstruction loss."""

    @dataclass(frozen=True)
    class Options:
        ewc: Consolidation = field(default_factory=Consolidation)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.strength, self.decay = self.options.ewc.strength, self.options.ewc.decay

    def measure(self) -> dict[str, Tensor]:
        images = self.some_images(self.options.ewc.samples)
        data = self.experience.resident
        return mean_over_images(self.model, self.held(), data, images, reconstruction_loss, torch.square)

    def hold(self, importance: dict[str, Tensor]) -> None:
        if self.options.ewc.form == "online":
            super().hold(importance)
        else:
            self.importances.append(importance)
            self.anchors.append(self.present_weights())
