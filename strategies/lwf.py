"""Learning without forgetting: distils the old network's reconstructions of new images.

Li and Hoiem, "Learning without Forgetting", ECCV 2016, with reconstructions instead of class scores.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iufbench.learning.base import ReconstructionStrategy
from iufbench.support.fields import number


@dataclass(frozen=True)
class Distillation:
    strength: float = number(1.0, at_least=0)


class LwF(ReconstructionStrategy):
    """Adds ``strength`` times the MSE between the new and the old network's reconstruction.

    ``teacher``: a copy of the network after the last experience, in evaluation mode: its input are clean
    features, while the trained network receives jittered ones.
    """

    @dataclass(frozen=True)
    class Options:
        lwf: Distillation = field(default_factory=Distillation)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.teacher: nn.Module | None = None

    def losses(self) -> dict[str, Tensor]:
        terms = super().losses()
        if self.teacher is not None:
            with torch.no_grad():
                old = self.teacher(self.mbatch.x).reconstruction
            distance = F.mse_loss(self.mb_output.reconstruction, old)
            terms["distillation"] = self.options.lwf.strength * distance
        return terms

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.teacher = self._frozen_copy()
        super()._after_training_exp(**kwargs)

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.teacher = self._frozen_copy()

    def _frozen_copy(self) -> nn.Module:
        return copy.deepcopy(self.model).to(self.device).eval().requires_grad_(False)

    def beside_network(self) -> Any:
        teacher = {} if self.teacher is None else self.teacher.state_dict()
        return {**super().beside_network(), "teacher": teacher}
