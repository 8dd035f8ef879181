"""The fraction of time in which a GPU computed, measured in a short window of a long training."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from avalanche.core import SupervisedPlugin
from torch.autograd import DeviceType

WORTH = 10_000  # iterations of an experience: opening a profiler takes one or two seconds
EPOCHS = 2  # before the window: every shape of batches has been captured by then
LENGTH = 20  # iterations


class Window(Protocol):
    """Measures the seconds in which kernels run."""

    def open(self) -> None: ...

    def close(self) -> float: ...


def kernel_seconds(profile: Any) -> float:
    """Seconds of kernels in a ``torch.profiler.profile``; operations that started them repeat these times."""
    events = [e for e in profile.key_averages() if e.device_type == DeviceType.CUDA]
    return sum(e.self_device_time_total for e in events if not e.is_user_annotation) / 1e6


class Profiler:
    """torch's profiler on a CUDA device."""

    def open(self) -> None:
        torch.cuda.synchronize()
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self._profile.__enter__()

    def close(self) -> float:
        torch.cuda.synchronize()
        self._profile.__exit__(None, None, None)
        return kernel_seconds(self._profile)


class KernelShare(SupervisedPlugin):
    """Opens one window during training. ``share``: fraction of time, in [0, 1]; None until it is closed."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.share: float | None = None
        self._window, self._begun, self._done = window, 0.0, 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if not self._begun and strategy.clock.train_exp_epochs >= EPOCHS:
            self._window.open()
            self._begun = time.perf_counter()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if not self._begun or self.share is not None:
            return
        self._done += 1
        if self._done == LENGTH:
            self.share = min(1.0, self._window.close() / (time.perf_counter() - self._begun))


@contextmanager
def kernel_share(strategy: Any, iterations: int, window: Window | None = None) -> Iterator[KernelShare]:
    """Measure while ``strategy`` trains an experience, if it is long enough and the device is a GPU.

    Args:
        strategy: The strategy.
        iterations: Iterations of the experience; fewer than ``WORTH`` are not measured.
        window: Replaces the profiler, on any device.
    """
    cuda = strategy.device.type == "cuda"
    plugin = KernelShare(window or Profiler())
    measured = iterations >= WORTH and (cuda or window is not None)
    if measured:
        strategy.plugins.append(plugin)
    try:
        yield plugin
    finally:
        if measured:
            strategy.plugins.remove(plugin)
