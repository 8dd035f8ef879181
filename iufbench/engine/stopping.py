"""Ctrl-C (SIGINT), SIGTERM and SIGHUP end a run immediately; it can be resumed from the files on disk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Context manager: SIGINT and SIGTERM raise KeyboardInterrupt, even if the shell ignored them; so does
    SIGHUP (the terminal was closed), unless it is ignored on purpose (nohup).

    Does nothing outside the main thread, where signals cannot be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *hang_up()]
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def hang_up() -> list[signal.Signals]:
    """SIGHUP, if it exists and is not ignored."""
    number = getattr(signal, "SIGHUP", None)
    return [] if number is None or signal.getsignal(number) == signal.SIG_IGN else [number]
