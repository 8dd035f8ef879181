"""Ctrl-C (SIGINT), SIGTERM and SIGHUP end a run at once: what is on the disk is enough to resume it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While open, SIGINT and SIGTERM raise KeyboardInterrupt, even where a shell had them ignored; so does
    SIGHUP (a terminal that closes), unless it is ignored on purpose (nohup).

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
    """SIGHUP, where there is such a thing and nobody has it ignored."""
    number = getattr(signal, "SIGHUP", None)
    return [] if number is None or signal.getsignal(number) == signal.SIG_IGN else [number]
