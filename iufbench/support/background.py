"""One call in a background thread, while the caller prepares the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class OneBehind:
    """Runs calls in order in one thread; at most one is unfinished.

    A context manager: no call and no thread is left when it exits. An exception of a call is raised in the
    caller by the next ``wait`` or at the exit. There it takes precedence over an exception that the caller
    itself raised after handing over the call, as if the call had not been in the background.

    Example:
        >>> with OneBehind() as behind:
        ...     behind.run(print, "in a thread")
        in a thread
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._unfinished: Future[Any] | None = None

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """Start a call after the previous one has ended. Raises any exception of the previous one."""
        self.wait()
        self._unfinished = self._pool.submit(function, *arguments)

    def wait(self) -> None:
        """Return when no call is running. Raises any exception of the last one, once."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()

    def __enter__(self) -> OneBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, Exception):  # not for Ctrl-C
                self.wait()
        finally:
            self._pool.shutdown()
