"""How much memory can still be had on this machine, and how much a process holds."""

from __future__ import annotations

import math
from pathlib import Path

CGROUPS = (
    ("memory.max", "memory.current"),  # version 2
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
)


def free_mb(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """MiB that new processes can have: the system's available memory, or what a container's limit leaves.

    Infinite where neither can be read, so that nothing waits for a number that never comes.
    """
    available = math.inf
    try:
        lines = meminfo.read_text().splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**10
    except (OSError, StopIteration, ValueError):
        pass
    for limit, usage in CGROUPS:
        try:
            left = (int((cgroup / limit).read_text()) - int((cgroup / usage).read_text())) / 2**20
        except (OSError, ValueError):  # not there, or "max"
            continue
        available = min(available, left)
    return available


def resident_mb(pid: int) -> float:
    """MiB that a process holds now; 0 when it cannot be seen."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 2**10
    except (OSError, StopIteration, ValueError):
        return 0.0
