"""Settings of the C library's allocator, which serves torch's CPU tensors."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names and numbers of mallopt(3), malloc.h of glibc
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors in this process, for the next iteration.

    By default glibc returns every tensor above 32 MiB, and the top of the heap, to the kernel as soon as it
    is freed; each iteration then pays for the same zeroed pages again. With this setting a process keeps its
    peak memory until it exits. Results are not affected. The setting holds for the whole process, so it is
    made at the start of a run, not at import.

    Returns:
        Whether it took effect; without glibc nothing is changed.
    """
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return False
        settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BY))
        return all(libc.mallopt(name, value) == 1 for name, value in settings)
    except (OSError, TypeError, AttributeError):  # the C library cannot be loaded this way (Windows)
        return False
