"""Where the inputs of a run are stored: on the GPU if they fit, else in memory, else in a file."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from iufbench.support.bytebar import readable
from iufbench.support.errors import RunError
from iufbench.support.memory import free_memory

DEVICE_SHARE = 0.5  # of the GPU's free memory; the rest is for network, gradients and anomaly maps
HOST_SHARE = 0.7  # of the free memory; the rest is for the learner, its memories and the masks
Kind = Literal["device", "pinned", "memory", "mapped"]


def choose(needed: int, host_free: int, device_free: int | None = None) -> Kind:
    """Choose where to store ``needed`` bytes, given the free bytes of host and GPU memory (None without GPU).

    ``device`` if they take at most ``DEVICE_SHARE`` of the free GPU memory; ``pinned`` (page-locked host
    memory for asynchronous copies; ``memory`` without a GPU) if they take at most ``HOST_SHARE`` of the free
    host memory; else ``mapped``: a memory-mapped file.
    """
    if device_free is not None and needed <= DEVICE_SHARE * device_free:
        return "device"
    if needed <= HOST_SHARE * host_free:
        return "memory" if device_free is None else "pinned"
    return "mapped"


@dataclass(frozen=True)
class Home:
    """A place for tensors: ``device`` for kind ``device``, ``folder`` for kind ``mapped``."""

    kind: Kind = "memory"
    device: torch.device | None = None
    folder: Path | None = None

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor. Raises RunError if a file for it does not fit on the disk."""
        if self.kind == "mapped":
            assert self.folder is not None
            return _mapped(shape, dtype, self.folder)
        device = self.device if self.kind == "device" else None
        return torch.empty(shape, dtype=dtype, device=device, pin_memory=self.kind == "pinned")


def home_for(needed: int, device: torch.device, folder: Path) -> Home:
    """Choose the home of ``needed`` bytes on this machine; a file would be created in ``folder``."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return Home(choose(needed, free_memory(), free), device, folder)


def _mapped(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> Tensor:
    """A tensor in an unlinked file, which is removed when the last process that uses it ends."""
    size = math.prod(shape)
    needed = size * dtype.itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="inputs-") as file:
            # Reserved, not only sized: writing to a map without a disk block behind it kills the process.
            os.posix_fallocate(file.fileno(), 0, needed)
            return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(shape)
    except OSError as error:
        raise RunError(
            f"inputs of {readable(needed)} do not fit into memory, and a file for them cannot be created "
            f"in {folder} ({error.strerror}); set IUFBENCH_CACHE to a folder with enough space"
        ) from error
