"""Parallel work on many files in several processes, with results in order and in bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
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
    """Apply a function to every task; with one worker or one task, in this process.

    Args:
        function: A picklable function.
        tasks: Its arguments.
        workers: Number of processes; None for one per core.

    Yields:
        The results in order.

    Raises:
        BrokenProcessPool: A worker died.
        Exception: Any exception of ``function``.
    """
    processes = min(cores() if workers is None else workers, len(tasks))
    if processes <= 1:
        yield from map(function, tasks)
        return
    # Not forked: the caller may have threads (torch), and a forked process can then hang.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent)
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            with _interrupts_blocked():  # processes start when work is submitted
                waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def end_with_parent() -> None:
    """Initialise a worker process: it ends when its parent was killed, which pools do not notice."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: this process ends them, without a traceback from each.

    In this process the signal is delayed until the block ends.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
