"""What a training step consists of: floating-point operations, and milliseconds of its parts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from iufbench.bench.timing import Spread, synchronising, take_turns
from iufbench.learning.step import Step, eager
from iufbench.models.compression import RecentRows, StaticRows, tail_by_products, tail_singular_values

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


def compression_ms(device: str, batch: int, repeats: int = 5, window: int = 768, width: int = 256) -> dict:
    """Median milliseconds of IUF's compression loss with its gradient, in both forms, in turns.

    By default of the published size: three layers of 768 kept rows, a quarter of the channels left alone.
    """
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(3, window + batch, width, generator=generator).to(device)
    kept, new, first = made[:, :window], made[:, window:].clone().requires_grad_(), width // 4
    batches, static = list(kept.split(batch, dim=1)), StaticRows(window, kept.split(batch, dim=1))
    recent = RecentRows(window, batches)
    recent.with_new(list(kept[:, :batch]))  # as in the middle of an epoch, with the Gram matrices at hand

    def gradient(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), new)

    forms = {
        "eigenvalues": gradient(lambda: tail_singular_values(recent.with_new(list(new)), first)),
        "products": gradient(lambda: tail_by_products(static.joined(list(new)), first)),
    }
    timings = take_turns(forms, repeats, synchronising(device), warm_up=2)
    return {name: 1000 * Spread.of(timing.wall).median for name, timing in timings.items()}
