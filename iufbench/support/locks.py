"""Locks between processes: one file per thing that only one process may write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"  # stays when the lock is released: removing it would split those who wait for it


@contextmanager
def locked(folder: Path, wait: float = 0) -> Iterator[bool]:
    """Try to hold the lock of a folder that exists, for at most ``wait`` seconds (-1: without limit).

    The lock is the system's own (``flock``; a marker file on file systems without it) and ends with the
    process, however that dies. A symbolic link in place of the lock file is not followed.

    Yields:
        True while this process holds the lock, False when another one does.

    Raises:
        OSError: the lock file cannot be written.
    """
    lock = FileLock(folder / NAME, timeout=wait)
    try:
        lock.acquire(poll_interval=0.1)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
