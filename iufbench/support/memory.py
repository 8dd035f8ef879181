"""Available memory of this machine, and memory used by a process."""

from __future__ import annotations

import os
from pathlib import Path

from iufbench.support.errors import RunError

LEAST_ADDRESSES = 2**29  # bytes: with a smaller address space, libraries abort the process while loading
CGROUPS = (
    ("memory.max", "memory.current"),  # version 2
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def free_memory(system: Path = Path("/")) -> int:
    """Bytes that processes can still allocate: available memory, limited by the control group.

    Without this information (outside Linux) it is the installed memory.
    """
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, usage in CGROUPS:
        group = system / "sys/fs/cgroup"
        try:
            left = int((group / limit).read_text()) - int((group / usage).read_text())
        except (OSError, ValueError):  # missing, or "max"
            continue
        free = min(free, left)
    return max(0, free)


def resident_memory(pid: int) -> int:
    """Resident memory of a process in bytes; 0 if it cannot be determined."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return 0


def lacks_memory(error: BaseException) -> bool:
    """Whether Python, the loader of libraries, torch or the system's threads received no memory."""
    words = (
        "failed to map segment",
        "cannot allocate memory",
        "can't allocate memory",
        "can't start new thread",
    )
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def require_addresses() -> None:
    """Raise RunError if the address space is limited to less than even light commands need."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        raise RunError(
            f"the address space is limited to {limit // 2**20} MiB (ulimit -v): commands that read results "
            f"need {LEAST_ADDRESSES // 2**20} MiB, training needs several GiB; raise the limit or remove it"
        )
