"""Locks between processes: one lock file in every folder that only one process may write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"  # kept after release: waiting processes could otherwise lock different files


@contextmanager
def locked(folder: Path, wait: float = 0) -> Iterator[bool]:
    """Try to lock an existing folder.

    The lock is the operating system's (``flock``; a marker file on file systems without it) and is released
    when the process ends in any way. A symbolic link in place of the lock file is not followed.

    Args:
        folder: The folder.
        wait: Seconds to wait for the lock; -1 for no limit.

    Yields:
        Whether this process holds the lock.

    Raises:
        OSError: The lock file cannot be written.
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
