"""Where a run came from: versions, device, threads, git state, memory."""

from __future__ import annotations

import hashlib
import platform
import resource
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "avalanche-lib", "timm", "numpy", "scipy", "pillow", "scikit-learn")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def command_line() -> str:
    """The command as typed, with the program's short name."""
    return shlex.join(["iufbench", *sys.argv[1:]])


def environment(device: str, threads: int) -> dict[str, Any]:
    """Versions, machine and git state; missing packages are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "device": device,
        "threads": threads,
        "git": git_state(Path(__file__).resolve().parent.parent),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and the hash of uncommitted changes, when the package runs from a git checkout; else empty."""
    if not (folder / ".git").exists():
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    difference = _git(folder, "diff", "HEAD")
    if commit is None or difference is None:
        return {}
    dirty = hashlib.sha256(difference.encode()).hexdigest()[:12] if difference else None
    return {"commit": commit.strip(), "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def peak_memory_mb() -> float:
    """The largest resident set of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
