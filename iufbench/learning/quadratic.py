"""The quadratic penalty shared by EWC, SI, MAS and LVT: important weights are kept close to their old values.

The penalty is ``strength * sum_i w_i (theta_i - theta_i_old)^2``, without a factor 1/2. The importances w of
an experience are divided by their mean over all penalised weights, which puts the strengths of all methods on
one scale: with strength 1, moving every weight by d costs d^2 times the number of weights.
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
    """Compute sum_i w_i (theta_i - anchor_i)^2 (Kirkpatrick et al., PNAS 2017, eq. 3, without lambda / 2).

    Args:
        now: Current weights theta by name, with gradients.
        anchor: Old weights by name.
        importance: Importances w >= 0 by name; its names select the tensors.

    Returns:
        A scalar with a gradient.
    """
    return torch.stack([(importance[n] * (now[n] - anchor[n]).square()).sum() for n in importance]).sum()


def normalised(importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide importances by their mean over all entries; unchanged if all are zero."""
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
    """Average ``of(gradient of objective)`` over single images.

    Gradients are computed per image: squares or absolute values of a batch's mean gradient would depend on
    the batch size. The model is in evaluation mode (no jitter, no dropout), so no random numbers are drawn.

    Args:
        model: The network.
        parameters: Parameters to differentiate with respect to, by name.
        data: The inputs.
        images: Indices [N] into ``data``.
        objective: Maps the network's output for one image to a scalar.
        of: Applied to each gradient, such as the square.

    Returns:
        One tensor per parameter, by name.
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
    """Reconstruction with the quadratic penalty; a method implements the importance measure (``measure``).

    ``anchors`` and ``importances`` are lists of equal length: one entry, or one per experience for methods
    that keep experiences separate.
    """

    carried: ClassVar[tuple[str, ...]] = ("anchors", "importances")
    strength: float
    decay: float = 1.0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.anchors: list[dict[str, Tensor]] = []
        self.importances: list[dict[str, Tensor]] = []

    def measure(self) -> dict[str, Tensor]:
        """Compute the importances (>= 0) of the penalised parameters for the experience just trained."""
        raise NotImplementedError

    def held(self) -> dict[str, nn.Parameter]:
        """The penalised parameters, by name."""
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
        """Anchor the current weights; importances are the old ones times ``decay`` plus the new ones."""
        if self.importances:
            importance = {n: self.decay * self.importances[-1][n] + w for n, w in importance.items()}
        self.importances = [importance]
        self.anchors = [self.present_weights()]

    def present_weights(self) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in self.held().items()}

    def some_images(self, count: int) -> Tensor:
        """Draw indices of ``count`` images of the experience (all if it has fewer) with the run's seed."""
        assert self.experience is not None
        seed = derive(self.context.seeds.memory, "importance", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.experience.resident), generator=generator)[:count]
