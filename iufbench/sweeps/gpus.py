"""Which GPUs a sweep on this machine uses, and how many of its runs share one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.support.errors import InputError
from iufbench.sweeps.estimate import readable_records

MOST = 4  # runs that share a GPU by default: a captured iteration leaves little of its time unused
USUAL_MIB = 8192.0  # GPU memory of a run without a finished run to compare
CONTEXT_MIB = 700.0  # of CUDA and its libraries in each process, besides torch's allocations
CORES = 2  # CPU cores used by a run besides its GPU: it evaluates while others train


def visible_gpus(device: str) -> list[str]:
    """The GPUs available to runs, by their names in CUDA_VISIBLE_DEVICES.

    Args:
        device: ``--device`` of the sweep; ``cuda:1`` is one GPU, ``cuda`` and ``auto`` are all.
    """
    import torch

    count = torch.cuda.device_count() if device == "auto" or device.startswith("cuda") else 0
    if not count:
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",")[:count] if given else [str(k) for k in range(count)]
    number = device.removeprefix("cuda").removeprefix(":")
    return names[int(number) : int(number) + 1] if number.isdigit() else names


def runs_per_gpu(
    gpus: Sequence[str], share: float | None, cores: int, needed_mib: float, free_mib: Sequence[float]
) -> int:
    """How many runs share a GPU.

    Args:
        gpus: The GPUs.
        share: ``--gpus-per-run``: 0.25 for four runs; None chooses by memory and CPU cores, at most ``MOST``.
        cores: CPU cores for all runs.
        needed_mib: GPU memory of a run.
        free_mib: Free memory of each GPU.

    Raises:
        InputError: The share is 0 or more than 1.

    >>> runs_per_gpu(["0"], None, 16, 6000.0, [80000.0])
    4
    >>> runs_per_gpu(["0", "1"], 0.5, 4, 6000.0, [8000.0, 8000.0])
    2
    """
    if share is not None:
        if not 0 < share <= 1:
            raise InputError(
                f"--gpus-per-run {share:g}: a run on this machine uses one GPU or a part of one "
                "(0.25: four runs share a GPU); --device cpu uses none"
            )
        return int(1 / share + 1e-9)
    fitting = min(free_mib) // (needed_mib + CONTEXT_MIB)
    return int(max(1, min(MOST, fitting, cores // (CORES * len(gpus)))))


def measured_mib(results: Path) -> float:
    """The most GPU memory that a finished run below ``results`` allocated; ``USUAL_MIB`` if there is none."""
    found = (record.costs.peak_device_memory_mb or 0.0 for _, record in readable_records(results))
    return max(found, default=0.0) or USUAL_MIB


def free_mib(count: int) -> list[float]:
    """Free memory of the first ``count`` visible GPUs."""
    import torch

    return [torch.cuda.mem_get_info(number)[0] / 2**20 for number in range(count)]
