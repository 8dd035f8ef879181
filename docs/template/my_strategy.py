"""A user-defined strategy: an L2 penalty keeps the weights close to those of the previous experience."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from iufbench.learning import ReconstructionStrategy, number


@dataclass(frozen=True)
class Anchor:  # the card's `anchor:` block; an invalid key or value is an error
    strength: float = number(1.0, at_least=0)


class MyStrategy(ReconstructionStrategy):
    @dataclass(frozen=True)
    class Options(ReconstructionStrategy.Options):
        anchor: Anchor = field(default_factory=Anchor)

    carried = ("old",)  # passed to the next experience, stored in checkpoints, counted as a cost

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.old: dict[str, Tensor] = {}

    def losses(self) -> dict[str, Tensor]:
        terms = super().losses()  # {"reconstruction": ...} of the current mini-batch
        if self.old:
            moved = [(p - self.old[n]).square().sum() for n, p in self.model.named_parameters()]
            terms["anchor"] = self.options.anchor.strength * sum(moved, moved[0].new_zeros(()))
        return terms

    def _after_training_exp(self, **kwargs: Any) -> None:  # Avalanche's callbacks start with an underscore
        self.old = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        super()._after_training_exp(**kwargs)
