"""What EWC, SI, MAS and LVT share: old weights held by springs, stiff where a weight mattered.

The penalty is ``strength * sum_i w_i (theta_i - theta_i_old)^2``, without a factor 1/2. Importances w of one
experience are divided by their mean over all held weights, so that strengths of the methods are on one scale:
1 means that moving every weight by d costs d^2 times the number of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from iufbench.data.resident import ResidentData
from iufbench.learning.base import ReconstructionStrategy
from iufbench.models.uniad import Reconstruction
from iufbench.support.seeding import derive


def quadratic_penalty(
    now: Mapping[str, Tensor], anchor: Mapping[str, Tensor], importance: Mapping[str, Tensor]
) -> Tensor:
    """sum_i w_i (theta_i - anchor_i)^2 over all tensors of ``importance``; a scalar with a gradient."""
    return torch.stack([(importance[n] * (now[n] - anchor[n]).square()).sum() for n in importance]).sum()


def normalised(importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divided by the mean over all entries; unchanged when nothing has any importance."""
    total = float(sum(w.double().sum() for w in importance.values()))
    mean = total / sum(w.numel() for w in importance.values())
    return {n: w / mean if mean > 0 else w.clone() for n, w in importance.items()}


def mean_over_images(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    data: ResidentData,
    images: Tensor,
    objective: Callable[[Reconstruction], Tensor],
    of: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Mean over single images of ``of(gradient of objective)``, one tensor per parameter.

    ``images``: indices [N] into ``data``. Gradients are those of one image each: squares or absolute values
    of a batch's mean gradient would depend on the batch size. The model is in evaluation mode meanwhile (no
    jitter, no dropout), so that no random number is drawn.
    """
    was_training = model.training
    model.eval()
    device = next(iter(parameters.values())).device
    result = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for image in images.split(1):
        output = model(data.batch(image).to(device).x)
        gradients = torch.autograd.grad(objective(output), list(parameters.values()))
        for name, gradient in zip(parameters, gradients):
            result[name] += of(gradient) / len(images)
    model.train(was_training)
    return result


class HeldWeights(ReconstructionStrategy):
    """Reconstruction with the quadratic penalty; a method says what it measures (``measure``).

    ``anchors`` and ``importances``: what is held, equally long; one entry, or one per experience for methods
    that keep experiences apart.
    """

    carried: ClassVar[tuple[str, ...]] = ("anchors", "importances")
    strength: float
    decay: float = 1.0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.anchors: list[dict[str, Tensor]] = []
        self.importances: list[dict[str, Tensor]] = []

    def measure(self) -> dict[str, Tensor]:
        """Importances >= 0 of the held parameters for the experience that has just been trained."""
        raise NotImplementedError

    def held(self) -> dict[str, nn.Parameter]:
        """The parameters that are held, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def losses(self) -> dict[str, Tensor]:
        terms = super().losses()
        if self.anchors:
            now = self.held()
            springs = [quadratic_penalty(now, a, w) for a, w in zip(self.anchors, self.importances)]
            terms["penalty"] = self.strength * torch.stack(springs).sum()
        return terms

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.hold(normalised(self.measure()))
        super()._after_training_exp(**kwargs)

    def hold(self, importance: dict[str, Tensor]) -> None:
        """Hold the present weights: old importances, times ``decay``, and the new ones add up."""
        if self.importances:
            importance = {n: self.decay * self.importances[-1][n] + w for n, w in importance.items()}
        self.importances = [importance]
        self.anchors = [self.present_weights()]

    def present_weights(self) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in self.held().items()}

    def some_images(self, count: int) -> Tensor:
        """Indices of ``count`` images of the experience, all when it has fewer; drawn from the run's seed."""
        assert self.experience is not None
        seed = derive(self.context.seeds.memory, "importance", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.experience.resident), generator=generator)[:count]
