"""Memories of a few prototypes per object, and routing by the distances of patches to them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.context import Uses
from iufbench.learning.memory_bank import MemoryBank, entries_each, patch_rows
from iufbench.models.neighbours import greedy_coreset
from iufbench.support.seeding import derive


class Prototypes(MemoryBank):
    """A k-centre coreset of ``size`` patches per object, stored in farthest-first order, so that the first k
    prototypes are the coreset of size k.

    ``memory[object]["bank"]`` is [size, C], with fewer rows if an object has fewer patches or if ``budget``,
    divided equally among the objects, holds fewer: then every coreset is truncated to its first rows.
    """

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, gradients=False, routing=True)
    within: ClassVar[tuple[str, ...]] = ("_new",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._new: dict[int, list[Tensor]] = {}

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of prototypes per object."""

    @property
    @abstractmethod
    def budget(self) -> tuple[str, int]:
        """The card key of the budget of all objects together, and its bytes."""

    def see(self, key: int, patches: Tensor, vectors: Tensor | None) -> None:
        self._new.setdefault(key, []).append(patch_rows(patches))

    def settle(self) -> None:
        setting, budget = self.budget
        share = entries_each(setting, budget, len({*self.memory, *self._new}), 4 * self.context.channels)
        for parts in self.memory.values():
            parts["bank"] = parts["bank"][:share].clone()
        for key in list(self._new):
            points = torch.cat(self._new.pop(key))
            seed = derive(self.context.seeds.memory, "prototypes", key)
            first = int(torch.randint(len(points), (), generator=torch.Generator().manual_seed(seed)))
            self.memory[key] = {"bank": points[greedy_coreset(points, min(self.size, share), first=first)]}

    def nearest_key(self, costs: dict[int, Tensor]) -> Tensor:
        """The object with the lowest cost for each image, int64 [B]; ``costs[object]`` is [B]."""
        keys = torch.tensor(list(costs), device=self.device)
        return keys[torch.stack(list(costs.values())).argmin(dim=0)]
