"""A strategy of your own: weights are held near those of the last experience (an L2 anchor)."""

from __future__ import annotations

from dataclasses import dataclass, field

from iufbench.learning.base import ReconstructionStrategy
from iufbench.support.fields import number


@dataclass(frozen=True)
class Anchor:  # the card's `anchor:` block; a wrong key or value is an error that names the card
    strength: float = number(1.0, at_least=0)


class MyStrategy(ReconstructionStrategy):
    @dataclass(frozen=True)
    class Options:
        anchor: Anchor = field(default_factory=Anchor)

    carried = ("old",)  # what goes to the next experience beside the network, and into checkpoints

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.old = {}

    def losses(self):
        terms = super().losses()  # {"reconstruction": ...} of the current mini-batch
        if self.old:
            moved = [(p - self.old[n]).square().sum() for n, p in self.model.named_parameters()]
            terms["anchor"] = self.options.anchor.strength * sum(moved)
        return terms

    def _after_training_exp(self, **kwargs):  # Avalanche's callbacks, underscore in front
        self.old = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        super()._after_training_exp(**kwargs)

    @property
    def bytes_kept(self):  # shown beside the results: memory is a cost
        return sum(tensor.nbytes for tensor in self.old.values())
