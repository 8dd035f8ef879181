"""Work on many files in several processes, in order, without piling up results."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None = None
) -> Iterator[Result]:
    """``function`` of every task, in order; ``workers`` processes, None for one per core.

    With one worker or one task everything happens here. Raises BrokenProcessPool when a worker dies, and
    whatever ``function`` raises.
    """
    processes = min(cores() if workers is None else workers, len(tasks))
    if processes <= 1:
        yield from map(function, tasks)
        return
    # Not forked: the caller may have threads (torch), and a fork of those can hang.
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            with _deaf_to_interrupts():  # processes start when work is given to them
                waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C: this one ends them, without a traceback from each.

    Here it is held back until the block ends, not lost.
    """
    resource_tracker.ensure_running()  # its start would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
