"""Experience replay: stored old images are replayed together with new ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from iufbench.learning.buffer import BalancedBudget, Budget, joined, reservoir, rows, selected
from iufbench.learning.context import Uses
from iufbench.learning.rehearsal import JointRehearsal
from iufbench.support.seeding import derive


class Replay(JointRehearsal):
    """Stores an equal number of random images of every object."""

    @dataclass(frozen=True)
    class Options:
        memory: BalancedBudget = field(default_factory=BalancedBudget)


class ReservoirReplay(JointRehearsal):
    """Stores a uniform sample of all images so far, without object ids.

    An object with few images may have none in the memory. ``seen``: number of images sampled from.
    """

    @dataclass(frozen=True)
    class Options:
        memory: Budget = field(default_factory=Budget)

    uses: ClassVar[Uses] = Uses(stored_images=True)
    carried: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seen = 0

    def limits(self) -> dict[int, int | None]:
        return {}

    def remember(self) -> None:
        seed = derive(self.context.seeds.memory, "keep", self.experience.current_experience)
        generator = torch.Generator().manual_seed(seed)
        held, arrivals = rows(self.memory), len(self.experience.resident)
        stay = reservoir(held, self.seen, arrivals, self.capacity, generator)
        old, new = stay[stay < held], stay[stay >= held] - held
        kept = joined(selected(self.memory, old), self.columns(new)) if held else self.columns(new)
        self.memory, self.seen = kept, self.seen + arrivals
