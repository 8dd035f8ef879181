"""How the C library hands out memory to torch's CPU tensors."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names and numbers of mallopt(3), malloc.h of glibc
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let freed tensors stay with this process, so that the next iteration finds its memory at hand.

    By default glibc gives every tensor above 32 MiB back to the kernel as soon as it is freed, and the top of
    the heap with it; each iteration then pays again for the same zeroed pages. A process keeps its
    peak until it ends. True when it took effect: elsewhere than on glibc nothing is changed. Numbers are not
    affected. Set for the whole process, so it belongs at the start of a run, not of an import.
    """
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return False
        settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BY))
        return all(libc.mallopt(name, value) == 1 for name, value in settings)
    except (OSError, TypeError, AttributeError):  # no C library to load by this way (Windows)
        return False
