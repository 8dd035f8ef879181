"""Ctrl-C (SIGINT) and SIGTERM: a run finishes its iteration, saves and ends, within seconds."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 6.0  # seconds until a step that is too long is cut off: batch systems kill after 10 and more


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While open, SIGTERM raises KeyboardInterrupt as Ctrl-C does. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Stop:
    """While open, the first signal only asks to stop: ``asked``. KeyboardInterrupt comes from ``check``, at a
    moment when all is saved; or by itself after ``GRACE`` seconds, or with a second signal.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Raise KeyboardInterrupt when it was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._too_late)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _too_late(self, number: int, frame: Any) -> None:
        raise KeyboardInterrupt
