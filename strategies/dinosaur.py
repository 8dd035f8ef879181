"""DINOSaur (arXiv 2605.24251, ECCV 2026): a bank at every position of the grid, routing by the class token.

A patch is compared with training patches at and around its own position, so the memory captures where a part
belongs, but objects must be positioned as in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from iufbench.learning.context import Uses
from iufbench.learning.memory_bank import MemoryBank, Patches, entries_each
from iufbench.models.neighbours import greedy_coreset, nearest
from iufbench.support.errors import InputError
from iufbench.support.fields import number
from iufbench.support.seeding import derive


@dataclass(frozen=True)
class Positions:
    """``share``: fraction of an object's training images whose patch is kept at each position, at least
    ``fewest``; ``reach``: maximum distance in rows and columns of compared positions (None: all);
    ``budget_bytes``: budget for the banks and tokens of all objects, in equal shares."""

    share: float = number(0.2, above=0, at_most=1)
    fewest: int = number(20, at_least=1)
    reach: int | None = number(3, at_least=0)
    budget_bytes: int = number(512 * 2**20, at_least=1)


class DINOSaur(MemoryBank):
    """``memory[object]``: ``bank`` [P, M, C] (P positions, farthest-first at each) and ``token`` [V]."""

    @dataclass(frozen=True)
    class Options:
        patches: Patches = field(default_factory=Patches)
        positions: Positions = field(default_factory=Positions)

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, gradients=False, routing=True)
    within: ClassVar[tuple[str, ...]] = ("_new",)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if self.context.vector == 0:
            raise InputError(
                f"{self.recipe.title} routes by a global vector: set backbone.vector to class_token or mean"
            )
        self._new: dict[int, dict[str, list[Tensor]]] = {}
        self._window = _window(self.context.feature_size, self.options.positions.reach)

    def see(self, key: int, patches: Tensor, vectors: Tensor | None) -> None:
        assert vectors is not None
        new = self._new.setdefault(key, {"patches": [], "tokens": []})
        new["patches"].append(patches.flatten(2).permute(2, 0, 1))
        new["tokens"].append(vectors)

    def settle(self) -> None:
        most = self._most(len({*self.memory, *self._new}))
        for parts in self.memory.values():  # farthest-first order: a truncated coreset is the smaller coreset
            parts["bank"] = parts["bank"][:, :most].clone()
        for key in list(self._new):
            new = self._new.pop(key)
            seen, options = torch.cat(new["patches"], dim=1), self.options.positions
            wanted = max(options.fewest, math.ceil(options.share * seen.shape[1]))
            seed = derive(self.context.seeds.memory, "positions", key)
            first = int(torch.randint(seen.shape[1], (), generator=torch.Generator().manual_seed(seed)))
            bank = [points[greedy_coreset(points, min(wanted, most), first=first)] for points in seen]
            self.memory[key] = {"bank": torch.stack(bank), "token": torch.cat(new["tokens"]).mean(dim=0)}

    def _most(self, objects: int) -> int:
        """Patches per position for each of ``objects``. Raises InputError if it is less than one."""
        budget, positions = self.options.positions.budget_bytes, math.prod(self.context.feature_size)
        patch, token = 4 * self.context.channels * positions, 4 * self.context.vector
        what = f"patch at each of {positions} positions"
        return entries_each("positions.budget_bytes", budget, objects, patch, token, what)

    def route(self, patches: Tensor, vectors: Tensor | None) -> Tensor:
        """The object with the nearest mean class token."""
        assert vectors is not None
        tokens = torch.stack([parts["token"] for parts in self.memory.values()])
        keys = torch.tensor(list(self.memory), device=self.device)
        return keys[nearest(vectors, tokens)[1]]

    def distances(self, key: int, patches: Tensor) -> Tensor:
        bank = self.memory[key]["bank"]
        queries = patches.flatten(2).permute(2, 0, 1)
        found = [nearest(rows, bank[around].flatten(0, 1))[0] for rows, around in zip(queries, self._window)]
        return torch.stack(found, dim=1).view(len(patches), *patches.shape[2:])


class DINOSaurOracle(DINOSaur):
    """DINOSaur with known objects of test images."""

    uses: ClassVar[Uses] = Uses(object_id_at_training=True, object_id_at_test=True, gradients=False)


def _window(size: tuple[int, int], reach: int | None) -> list[Tensor]:
    """For each grid position (row-major), the positions it is compared with, all inside the grid."""
    height, width = size
    far = max(size) if reach is None else reach
    grid = torch.arange(height * width).view(height, width)
    return [
        grid[max(0, i - far) : i + far + 1, max(0, j - far) : j + far + 1].flatten()
        for i in range(height)
        for j in range(width)
    ]
