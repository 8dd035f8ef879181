"""Energy counters of the machine: NVIDIA GPUs through NVML, Intel and AMD processors through RAPL."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

RAPL = Path("/sys/class/powercap")


def energy_counter(device: str) -> tuple[Callable[[], float] | None, str]:
    """A counter of consumed energy in joules and its scope, or None and the reason for its absence.

    A GPU's counter is that of the whole card, a processor's that of its package: other programs are included.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
    """
    kind, _, index = device.partition(":")
    return _nvml(int(index or 0)) if kind == "cuda" else _rapl(RAPL)


def _nvml(index: int) -> tuple[Callable[[], float] | None, str]:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None, "NVML is not installed"
    handle, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return None, "NVML does not know the card"

    def joules() -> float:
        library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy))
        return energy.value / 1000

    if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy)):
        return None, "the card has no energy counter"
    return joules, "GPU card (NVML)"


def _rapl(folder: Path) -> tuple[Callable[[], float] | None, str]:
    files = sorted(folder.glob("intel-rapl:[0-9]*/energy_uj"))
    files = [file for file in files if file.parent.name.count(":") == 1]  # packages, not their parts
    if not files:
        return None, "no RAPL counters"

    def joules() -> float:
        return sum(int(file.read_text()) for file in files) / 1e6

    try:
        joules()
    except OSError as error:
        return None, f"RAPL counters cannot be read: {error.strerror}"
    return joules, "processor packages (RAPL)"
