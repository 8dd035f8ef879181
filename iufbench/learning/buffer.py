"""Rehearsal memories: equally long columns of tensors, one row an image, and the rules for what stays.

A memory is a plain dict such as ``{"features": [M, C, h, w], "objects": [M]}``; empty, it is an empty dict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from iufbench.support.errors import InputError
from iufbench.support.fields import number

Memory = dict[str, Tensor]


@dataclass(frozen=True)
class Budget:
    """How much may be remembered: at most ``images`` and at most ``bytes``, null for no limit.

    ``store``: frozen ``features`` in ``precision``, which are what a strategy sees, or uint8 ``images``,
    which go through the backbone again whenever they are shown. A budget larger than the data keeps all
    images. ``batch``: old images per iteration, null for as many as new; a smaller memory is shown whole.
    """

    images: int | None = number(None, at_least=1)
    bytes: int | None = number(None, at_least=1)
    store: Literal["features", "images"] = "features"
    precision: Literal["float16", "float32"] = "float16"
    batch: int | None = number(None, at_least=1)

    def capacity(self, image_bytes: int) -> int | None:
        """Images that fit, None for any number. Raises InputError when not a single one does."""
        fitting = None if self.bytes is None else self.bytes // image_bytes
        if fitting == 0:
            raise InputError(
                f"memory.bytes: {self.bytes} cannot hold one image, which takes {image_bytes} bytes here; "
                "raise it or set it to null"
            )
        known = [limit for limit in (self.images, fitting) if limit is not None]
        return min(known) if known else None


@dataclass(frozen=True)
class BalancedBudget(Budget):
    """A budget shared equally by the objects seen so far; ``per_object``: at most so many images of each."""

    per_object: int | None = number(10, at_least=1)


def rows(memory: Mapping[str, Tensor]) -> int:
    """Images in a memory."""
    return len(next(iter(memory.values()))) if memory else 0


def shares(objects: Sequence[int], capacity: int | None, per_object: int | None) -> dict[int, int | None]:
    """How many images each object may have, None for any number; a remainder goes to the first objects.

    Raises InputError when the capacity is smaller than the number of objects: one would be left out.
    """
    if capacity is None:
        return dict.fromkeys(objects, per_object)
    if capacity < len(objects):
        raise InputError(
            f"memory.images, memory.bytes: room for {capacity} images cannot hold one of each of the "
            f"{len(objects)} objects seen so far; raise the budget"
        )
    least, rest = divmod(capacity, len(objects))
    wanted = [least + (place < rest) for place in range(len(objects))]
    return {o: w if per_object is None else min(w, per_object) for o, w in zip(objects, wanted)}


def first_of_each(objects: Tensor, limits: Mapping[int, int | None]) -> Tensor:
    """Indices of the first ``limits[o]`` rows of every object o, in the order in which they stand."""
    kept = [torch.nonzero(objects == o).flatten()[:limit] for o, limit in limits.items()]
    return torch.cat(kept).sort().values


def joined(memory: Mapping[str, Tensor], arrivals: Mapping[str, Tensor]) -> Memory:
    """Old rows, then the new ones."""
    if not memory:
        return dict(arrivals)
    return {name: torch.cat([memory[name].to(new.device), new]) for name, new in arrivals.items()}


def selected(memory: Mapping[str, Tensor], index: Tensor) -> Memory:
    """The rows of an index tensor in its order."""
    return {name: column[index] for name, column in memory.items()}


def reservoir(
    held: int, seen: int, arrivals: int, capacity: int | None, generator: torch.Generator
) -> Tensor:
    """Which rows of old-then-new stay, so that each image ever seen stays with the same probability.

    ``held`` rows are in memory after ``seen`` images; ``arrivals`` more follow (Vitter's algorithm R).
    """
    slots = list(range(held))
    for arrival in range(arrivals):
        if capacity is None or len(slots) < capacity:
            slots.append(held + arrival)
            continue
        slot = int(torch.randint(seen + arrival + 1, (), generator=generator))
        if slot < capacity:
            slots[slot] = held + arrival
    return torch.tensor(slots, dtype=torch.int64)
