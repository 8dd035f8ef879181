"""Synaptic intelligence: importance is the contribution of a weight's path to the decrease of the loss.

Zenke, Poole and Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.quadratic import HeldWeights
from iufbench.support.fields import number


def path_importance(
    path: Mapping[str, Tensor], start: Mapping[str, Tensor], end: Mapping[str, Tensor], damping: float
) -> dict[str, Tensor]:
    """max(0, path / ((end - start)^2 + damping)), Zenke et al., equation 5.

    Negative contributions count as zero, as in the authors' code: with a negative importance the penalty
    would have no minimum. Nothing is clipped from above.
    """
    return {n: (path[n] / ((end[n] - start[n]).square() + damping)).clamp_min(0) for n in path}


@dataclass(frozen=True)
class Intelligence:
    """``damping``: xi, which keeps the importances of nearly unchanged weights finite."""

    strength: float = number(0.1, at_least=0)
    damping: float = number(1e-3, above=0)


class SI(HeldWeights):
    """``path`` accumulates -gradient * step of every iteration, with the gradient of the task loss only."""

    @dataclass(frozen=True)
    class Options:
        si: Intelligence = field(default_factory=Intelligence)

    within: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.strength = self.options.si.strength
        self.start: dict[str, Tensor] = {}
        self.path: dict[str, Tensor] = {}
        self._terms: dict[str, Tensor] = {}
        self._task_gradients: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        self.start = self.present_weights()
        self.path = {n: torch.zeros_like(w) for n, w in self.start.items()}

    def losses(self) -> dict[str, Tensor]:
        self._terms = super().losses()
        return self._terms

    def backward(self) -> None:
        # Two passes: the gradient of the penalty must not count as a contribution of the task.
        task = [term for name, term in self._terms.items() if name != "penalty"]
        torch.stack(task).sum().backward()
        self._task_gradients = {n: p.grad.clone() for n, p in self.held().items() if p.grad is not None}
        if "penalty" in self._terms:
            self._terms["penalty"].backward()

    def _before_update(self, **kwargs: Any) -> None:
        super()._before_update(**kwargs)
        # Copies: views of live weights would make every step look like zero.
        self._before = self.present_weights()

    @torch.no_grad()
    def _after_update(self, **kwargs: Any) -> None:
        held = self.held()
        for name, gradient in self._task_gradients.items():
            self.path[name] -= gradient * (held[name] - self._before[name])
        super()._after_update(**kwargs)

    def measure(self) -> dict[str, Tensor]:
        return path_importance(self.path, self.start, self.present_weights(), self.options.si.damping)
