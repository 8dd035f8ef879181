"""PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022).

The anomaly score of a patch is its distance to the nearest stored patch of a normal image. The memory is a
greedy coreset, here with a fixed byte budget and updated experience by experience.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.context import Uses
from iufbench.learning.memory_bank import MemoryBank, Patches, entries_each, patch_rows
from iufbench.models.neighbours import greedy_coreset, nearest
from iufbench.support.fields import number
from iufbench.support.seeding import derive


@dataclass(frozen=True)
class Coreset:
    """``ratio``: fraction of an experience's patches that is stored (1: all of them, no selection);
    ``budget_bytes``: budget of all banks together. A budget larger than the data is never filled."""

    ratio: float = number(0.1, above=0, at_most=1)
    budget_bytes: int = number(32 * 2**20, at_least=1)


class PatchCore(MemoryBank):
    """One bank for all objects.

    An experience adds the fraction ``ratio`` of its patches, farthest-first from those already stored.
    If the budget is exceeded, a greedy selection over old and new patches determines which are kept.
    """

    @dataclass(frozen=True)
    class Options:
        patches: Patches = field(default_factory=Patches)
        coreset: Coreset = field(default_factory=Coreset)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._new: dict[int, list[Tensor]] = {}

    def see(self, key: int, patches: Tensor, vectors: Tensor | None) -> None:
        self._new.setdefault(key, []).append(patch_rows(patches))

    def settle(self) -> None:
        banks = len({*self.memory, *self._new})
        budget = self.options.coreset.budget_bytes
        share = entries_each("coreset.budget_bytes", budget, banks, 4 * self.context.channels)
        for key in list(self._new):
            self._remember(key, torch.cat(self._new.pop(key)), share)
        # Banks of objects learnt earlier make room for the new ones.
        for parts in self.memory.values():
            if len(parts["bank"]) > share:
                parts["bank"] = parts["bank"][greedy_coreset(parts["bank"], share)]

    def _remember(self, key: int, points: Tensor, share: int) -> None:
        old = self.memory[key]["bank"] if key in self.memory else points[:0]
        wanted = math.ceil(self.options.coreset.ratio * len(points))
        if wanted < len(points) or len(points) > share:
            index = greedy_coreset(
                points, min(wanted, share), centres=old, first=self._first(key, len(points))
            )
            points = points[index]
        self.memory[key] = {"bank": torch.cat([old, points])}

    def _first(self, key: int, points: int) -> int:
        seed = derive(self.context.seeds.memory, "coreset", self.experience.current_experience, key)
        return int(torch.randint(points, (), generator=torch.Generator().manual_seed(seed)))

    def distances(self, key: int, patches: Tensor) -> Tensor:
        distance, _ = nearest(patch_rows(patches), self.memory[key]["bank"])
        return distance.view(len(patches), *patches.shape[2:])


class PatchCorePerObject(PatchCore):
    """One bank per object with equal shares of the budget; the nearest bank scores a test image."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, gradients=False, routing=True)


class PatchCoreOracle(PatchCore):
    """One bank per object; a test image is scored by the bank of its own object."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, object_id_at_test=True, gradients=False)
