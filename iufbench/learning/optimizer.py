"""A single optimiser object for all experiences, and the learning rate schedules that cards define."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from iufbench.cards.strategies import Training
from iufbench.learning.stable_adamw import StableAdamW


class CardOptimizer(torch.optim.Optimizer):
    """The optimiser of a strategy card, whose type may differ between base and increments.

    References to it, such as that of a learning rate scheduler, stay valid: ``start`` replaces the wrapped
    torch optimiser by a new one without state; parameter groups and state are those of the wrapped optimiser.
    """

    def __init__(self, training: Training, parameters: Iterable[nn.Parameter]) -> None:
        # Torch requires at least one parameter, which a learner without gradients does not have.
        self._given = (training, list(parameters) or [nn.Parameter(torch.zeros(0))])
        self._worker = _optimizer(*self._given)
        super().__init__(self._given[1], {})
        self._adopt()

    def start(self, training: Training, parameters: Iterable[nn.Parameter]) -> None:
        """Begin an experience with the card's learning rate, these parameters and an empty state."""
        given = (training, list(parameters))
        unused = not self.state and training is self._given[0] and _same(given[1], self._given[1])
        if not unused:  # else a scheduler's first step may already have set its learning rate
            self._given, self._worker = given, _optimizer(*given)
            self._adopt()

    def step(self, closure: Any = None) -> Any:
        return self._worker.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return self._worker.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._worker.load_state_dict(state_dict)
        self._adopt()

    def _adopt(self) -> None:
        self.param_groups, self.state = self._worker.param_groups, self._worker.state
        self.defaults = self._worker.defaults


def _optimizer(training: Training, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=training.lr, weight_decay=training.weight_decay, fused=True)
    if training.optimizer == "stable_adamw":
        return StableAdamW(parameters, lr=training.lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(parameters, lr=training.lr, weight_decay=training.weight_decay)


def _same(some: list[nn.Parameter], others: list[nn.Parameter]) -> bool:
    return [id(p) for p in some] == [id(p) for p in others]


def start_given(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Begin an experience with a user-provided optimiser: learning rates are kept, the state is cleared.

    Args:
        optimizer: The optimiser, changed in place.
        parameters: The trainable parameters. New ones are added to the last group; missing ones are removed.
    """
    wanted = list(parameters)
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    keep = {id(p) for p in wanted}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in keep]
    optimizer.param_groups[-1]["params"] += [p for p in wanted if id(p) not in known]
    optimizer.state.clear()


def learning_rate_factor(training: Training, iterations: int, per_epoch: int) -> Callable[[int], float]:
    """Create a learning rate schedule.

    Args:
        training: Schedule of the experience: warm-up, then constant, step (per epoch) or cosine decay to
            ``final_factor``.
        iterations: Iterations of the experience.
        per_epoch: Iterations per epoch.

    Returns:
        Maps an iteration (from 0) to the factor on ``lr``.
    """

    def factor(iteration: int) -> float:
        warm = min(1.0, (iteration + 1) / (training.warmup_iterations + 1))
        if training.schedule == "step":
            return warm * training.step_gamma ** (iteration // per_epoch // training.step_epochs)
        if training.schedule == "cosine":
            fallen = 0.5 + 0.5 * math.cos(math.pi * min(iteration / max(iterations, 1), 1.0))
            return warm * (training.final_factor + (1 - training.final_factor) * fallen)
        return warm

    return factor
