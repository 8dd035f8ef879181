"""Resolves the user's choice of device and precision on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from iufbench.support.errors import InputError

FAST_FLOAT64 = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))  # P100, V100, A100, H100, B200
PRECISIONS = ("fp32", "tf32", "bf16")  # of matrix products; auto stands for one of them


def choose_device(name: str) -> torch.device:
    """Choose the device of a run.

    Args:
        name: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The device.

    Raises:
        InputError: The device does not exist, or the driver is older than torch requires: an unusable GPU is
            not silently replaced by the CPU.
    """
    if name == "auto":
        name = "cuda" if _cuda() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: unknown device (use auto, cpu or cuda)") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: only cpu and cuda are supported")
    if device.type == "cuda" and not _cuda():
        raise InputError(f"--device {name}: no CUDA device is available here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices")
    return device


def _cuda() -> bool:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    old = [str(warning.message) for warning in said if "driver" in str(warning.message).lower()]
    if not available and old and "too old" in old[0]:
        raise InputError(
            f"the NVIDIA driver is too old for this build of torch (CUDA {torch.version.cuda}): update the "
            "driver, install a build of torch for an older CUDA version, or use --device cpu"
        )
    return available


def choose_precision(name: str, device_name: str) -> str:
    """Choose the precision of matrix products.

    Args:
        name: fp32, tf32, bf16 or ``auto``: bf16 on a GPU with hardware support for it, else fp32.
        device_name: As for ``choose_device``.

    Returns:
        fp32, tf32 or bf16.

    Raises:
        InputError: The device does not support the precision, or ``auto`` depends on a GPU that is not in
            this machine (when runs for a cluster are planned).
    """
    if name == "fp32" or (name == "bf16" and device_name == "cpu"):
        return name
    if name not in ("auto", *PRECISIONS):
        raise InputError(f"--precision {name}: unknown (allowed: auto, {', '.join(PRECISIONS)})")
    if name == "auto" and device_name.startswith("cuda") and not _cuda():
        raise InputError(
            f"--precision auto: this machine has no CUDA device, so what --device {device_name} supports "
            "is unknown; use --precision bf16 or fp32"
        )
    device = choose_device(device_name)
    if device.type == "cpu":
        if name == "tf32":
            raise InputError("--precision tf32: only CUDA devices support it; use fp32 or bf16 on the CPU")
        return "fp32" if name == "auto" else name
    card, has_bf16 = _card(device)
    if name == "auto":
        return "bf16" if has_bf16 else "fp32"
    if not has_bf16:  # bf16 and tf32 came with the same generation of GPUs
        raise InputError(
            f"--precision {name}: {card} does not support it (compute capability 8.0 is needed); use fp32"
        )
    return name


def _card(device: torch.device) -> tuple[str, bool]:
    """The GPU's name, and whether it supports bfloat16 (and TF32) in hardware."""
    return torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device) >= (8, 0)


def has_fast_float64(device: torch.device) -> bool:
    """Whether a device is a GPU with float64 at half the speed of float32; on others it is at most 1/32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) in FAST_FLOAT64


@contextmanager
def full_products(device: torch.device) -> Iterator[None]:
    """Context manager: float32 products on a GPU use full precision; earlier settings are restored.

    The flags are global to the process, so only one thread may use it. No effect on the CPU.
    """
    if device.type != "cuda":
        yield
        return
    backends: Any = torch.backends
    flags = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    try:
        set_products("fp32")
        yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = flags


def set_products(precision: str) -> None:
    """Enable TF32 for CUDA's float32 matrix products and convolutions if ``precision`` is tf32."""
    backends: Any = torch.backends
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = precision == "tf32"
