"""What a training step consists of: floating-point operations, and milliseconds of its parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from iufbench.bench.timing import synchronising
from iufbench.learning.step import Step, eager

PARTS = {
    "forward": "forward",
    "losses": "criterion",
    "backward": "backward",
    "before the update": "_before_update",
    "update": "optimizer_step",
}


def counted(strategy: Any, step: Callable[[], object]) -> float:
    """Floating-point operations of a step, executed eagerly: the counter does not see replays."""
    captured, strategy._step = strategy._step, lambda: eager(strategy)
    try:
        with FlopCounterMode(display=False) as counter:
            step()
    finally:
        strategy._step = captured
    return counter.get_total_flops()


def parts_of(strategy: Any, step: Callable[[], object], device: str, repeats: int = 5) -> dict[str, float]:
    """Median milliseconds of the parts of a step: of an eager one, and of the graphs of a captured one."""
    wait = synchronising(device) or (lambda: None)
    taken: dict[str, list[float]] = {}

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            wait()
            started = time.perf_counter()
            result = method(*arguments, **named)
            wait()
            taken.setdefault(name, []).append(time.perf_counter() - started)
            return result

        return call

    captured = strategy._step
    for name, method in PARTS.items():
        setattr(strategy, method, timed(name, getattr(strategy, method)))
    try:
        strategy._step = lambda: eager(strategy)
        for _ in range(1 + repeats):
            step()
    finally:
        strategy._step = captured
        for method in PARTS.values():
            delattr(strategy, method)
    graphs = list(captured._graphs.values()) if isinstance(captured, Step) else []
    for graph in graphs[:1]:
        pieces = {
            "graph up to the loss": graph._first,
            "between": graph._between,
            "graph after": graph._second,
        }
        for _ in range(1 + repeats):
            for name, piece in pieces.items():
                timed(name, piece)()
    return {name: 1000 * statistics.median(seconds[1:]) for name, seconds in taken.items()}
