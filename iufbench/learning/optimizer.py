"""One optimiser object for the life of a strategy, whatever the card asks for in the current experience."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from iufbench.cards.strategies import Training
from iufbench.learning.stable_adamw import StableAdamW


class CardOptimizer(torch.optim.Optimizer):
    """The optimiser of a strategy card, whose kind may differ between base and increments.

    Whoever holds it, such as a learning rate scheduler, always holds the one that is at work: ``start`` puts
    another torch optimiser behind it, without state, and the parameter groups and the state are that one's.
    """

    def __init__(self, training: Training, parameters: Iterable[nn.Parameter]) -> None:
        # Torch insists on a parameter, which a learner without gradients does not have.
        self._given = (training, list(parameters) or [nn.Parameter(torch.zeros(0))])
        self._worker = _optimizer(*self._given)
        super().__init__(self._given[1], {})
        self._adopt()

    def start(self, training: Training, parameters: Iterable[nn.Parameter]) -> None:
        """Begin an experience: the card's rate, these parameters, and nothing remembered of earlier steps."""
        given = (training, list(parameters))
        unused = not self.state and training is self._given[0] and _same(given[1], self._given[1])
        if not unused:  # else its rate may have been set already, by the first step of a scheduler
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
    """Begin an experience with the user's own optimiser: its rates stay, its memory of earlier steps goes.

    Parameters that are new join the last group; those that are gone or frozen leave theirs.
    """
    wanted = list(parameters)
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    keep = {id(p) for p in wanted}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in keep]
    optimizer.param_groups[-1]["params"] += [p for p in wanted if id(p) not in known]
    optimizer.state.clear()
