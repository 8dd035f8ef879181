"""Rehearsal memories: tensor columns of equal length, one row per image, and the rules for retention.

A memory is a plain dict such as ``{"features": [M, C, h, w], "objects": [M]}``, empty if nothing is stored.
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
    """The memory budget: at most ``images`` and at most ``bytes``, null for no limit.

    ``store``: frozen ``features`` in ``precision``, which are what a strategy sees, or uint8 ``images``,
    which pass through the backbone again whenever they are replayed. A budget larger than the data keeps all
    images. ``batch``: old images per iteration, null for as many as new; a smaller memory is replayed whole.
    """

    images: int | None = number(None, at_least=1)
    bytes: int | None = number(None, at_least=1)
    store: Literal["features", "images"] = "features"
    precision: Literal["float16", "float32"] = "float16"
    batch: int | None = number(None, at_least=1)

    def capacity(self, image_bytes: int) -> int | None:
        """Compute how many images fit.

        Args:
            image_bytes: Size of one stored image in bytes.

        Returns:
            The maximum number of images, None for no limit.

        Raises:
            InputError: The budget is too small for a single image.
        """
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
    """A budget shared equally by the objects seen so far, with at most ``per_object`` images of each."""

    per_object: int | None = number(10, at_least=1)


def rows(memory: Mapping[str, Tensor]) -> int:
    """The number of images in a memory."""
    return len(next(iter(memory.values()))) if memory else 0


def shares(objects: Sequence[int], capacity: int | None, per_object: int | None) -> dict[int, int | None]:
    """Divide the capacity equally among objects; a remainder goes to the first objects.

    Args:
        objects: Object ids.
        capacity: Total number of images, None for no limit.
        per_object: Maximum number of images of one object, None for no limit.

    Returns:
        Object id -> maximum number of images, None for no limit.

    Raises:
        InputError: The capacity is smaller than the number of objects.
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
    """Indices of the first ``limits[o]`` rows of every object o, in ascending order.

    Args:
        objects: Object ids [N].
        limits: Object id -> maximum number of rows, None for no limit.

    Returns:
        int64 [M].
    """
    kept = [torch.nonzero(objects == o).flatten()[:limit] for o, limit in limits.items()]
    return torch.cat(kept).sort().values


def joined(memory: Mapping[str, Tensor], arrivals: Mapping[str, Tensor]) -> Memory:
    """Append the new rows to the old ones; both have the same columns."""
    if not memory:
        return dict(arrivals)
    return {name: torch.cat([memory[name].to(new.device), new]) for name, new in arrivals.items()}


def selected(memory: Mapping[str, Tensor], index: Tensor) -> Memory:
    """Select rows by an index tensor, in its order."""
    # Copied to a GPU first: indexing with a tensor on the CPU would wait for the GPU.
    return {name: column[index.to(column.device, non_blocking=True)] for name, column in memory.items()}


def reservoir(
    held: int, seen: int, arrivals: int, capacity: int | None, generator: torch.Generator
) -> Tensor:
    """Reservoir sampling: every image seen so far is kept with the same probability (Vitter's algorithm R).

    Args:
        held: Rows in memory.
        seen: Images seen before the arrivals.
        arrivals: Number of new images.
        capacity: Maximum number of rows, None for no limit.
        generator: Source of random numbers.

    Returns:
        int64 [M]: the rows to keep; indices from ``held`` on refer to the arrivals.
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
