"""UCAD's continual prompting module without the contrastive part (Liu et al., AAAI 2024), no test peeking.

A task stores a key for routing and knowledge for scoring: k-centre coresets of frozen features. Without
trained prompts both are coresets of the same features, so the smaller one is a prefix of the larger one and
is stored once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from iufbench.learning.context import Uses
from iufbench.learning.memory_bank import Patches, patch_rows
from iufbench.learning.prototypes import Prototypes
from iufbench.models.neighbours import nearest
from iufbench.support.fields import number


@dataclass(frozen=True)
class Task:
    """``key``: number of patches used for routing; ``knowledge``: number of patches used for scoring;
    ``budget_bytes``: budget for the patches of all objects, in equal shares."""

    key: int = number(196, at_least=1)
    knowledge: int = number(196, at_least=1)
    budget_bytes: int = number(32 * 2**20, at_least=1)


class UCADCPM(Prototypes):
    @dataclass(frozen=True)
    class Options:
        patches: Patches = field(default_factory=Patches)
        task: Task = field(default_factory=Task)

    @property
    def size(self) -> int:
        return max(self.options.task.key, self.options.task.knowledge)

    @property
    def budget(self) -> tuple[str, int]:
        return "task.budget_bytes", self.options.task.budget_bytes

    def route(self, patches: Tensor, vectors: Tensor | None) -> Tensor:
        """The object whose key has the smallest sum of distances to all patches of an image."""
        rows = patch_rows(patches)
        costs = {
            key: nearest(rows, parts["bank"][: self.options.task.key])[0].view(len(patches), -1).sum(dim=1)
            for key, parts in self.memory.items()
        }
        return self.nearest_key(costs)

    def distances(self, key: int, patches: Tensor) -> Tensor:
        distance, _ = nearest(patch_rows(patches), self.memory[key]["bank"][: self.options.task.knowledge])
        return distance.view(len(patches), *patches.shape[2:])


class UCADCPMOracle(UCADCPM):
    """UCAD's CPM with known objects of test images."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, object_id_at_test=True, gradients=False)
