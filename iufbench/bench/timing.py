"""Interleaved timing of several calls, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of several measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Timing:
    """One entry per call: ``cpu`` seconds of all threads of this process, and ``wall`` seconds."""

    cpu: list[float]
    wall: list[float]


def synchronising(device: Any) -> Callable[[], None] | None:
    """The function that waits for ``device`` (a torch.device or its name); None for the CPU."""
    if not str(device).startswith("cuda"):
        return None
    import torch

    return torch.cuda.synchronize


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    synchronise: Callable[[], None] | None = None,
    warm_up: int = 1,
) -> dict[str, Timing]:
    """Call each function in turn for several rounds.

    Args:
        calls: Functions by name.
        repeats: Number of rounds.
        synchronise: Waits for an asynchronous device; called before each reading of the clock.
        warm_up: Uncounted rounds before.

    Returns:
        The times of each function.
    """
    timings = {name: Timing([], []) for name in calls}
    for turn in range(warm_up + repeats):
        for name, call in calls.items():
            if synchronise is not None:
                synchronise()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if synchronise is not None:
                synchronise()
            if turn >= warm_up:
                timings[name].cpu.append(time.process_time() - cpu)
                timings[name].wall.append(time.perf_counter() - wall)
    return timings


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times longer ``slow`` took, round by round."""
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])
