"""Weight files: read without executing code from them, checked against a model, fingerprinted."""

from __future__ import annotations

import codecs
import hashlib
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iufbench.support.errors import InputError
from iufbench.support.memory import lacks_memory

# Public checkpoints contain a best metric as a numpy number. Its type and the function that rebuilds it are
# harmless; files from numpy 1 refer to that function by its old path.
_REBUILD_NUMBER: Any = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)},
    _REBUILD_NUMBER,
    (_REBUILD_NUMBER, "numpy.core.multiarray.scalar"),
    codecs.encode,
]
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")  # prefixes of DataParallel and torch.compile


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read tensors without executing code from the file (``weights_only=True``).

    Args:
        path: A file of ``torch.save`` or safetensors, recognised by its content; tensors may be nested under
            ``state_dict`` or ``model``.

    Returns:
        Tensors by name, on the CPU, without the prefixes of ``DataParallel`` and ``torch.compile``.

    Raises:
        InputError: The file does not exist, is corrupted, or has no tensors.
    """
    path = Path(path)
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise InputError(f"weights: {path} {what}")
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"weights: {path} is corrupted or holds more than tensors and numbers; save only its state dict, "
            "with torch.save(state_dict, FILE)"
        ) from error
    except Exception as error:  # zip, pickle and safetensors raise different errors for a corrupted file
        if lacks_memory(error):
            raise
        reason = _first_line(error)
        if "TorchScript" in reason:  # torch advises to execute the file's code
            reason = "it is a TorchScript program; save its state dict, with torch.save(state_dict, FILE)"
        raise InputError(f"weights: {path} cannot be read as a state dict ({reason})") from error
    while key := next((k for k in _CONTAINERS if isinstance(_item(content, k), Mapping)), None):
        content = content[key]
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(name)[:40] for name, _ in list(entries)[:5])
        held = f", but {keys}; save one of them alone" if keys else ""
        raise InputError(f"weights: {path} holds no state dict (names and tensors){held}")
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # after the size of the header of safetensors
        from safetensors.torch import load_file

        return load_file(path)
    if not head.startswith((b"PK", b"\x80")):
        raise ValueError(f"it begins with {head!r}, unlike files of torch.save and safetensors")
    with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what is refused with a reason of ours
        return torch.load(path, map_location="cpu", weights_only=True)


def _item(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, Mapping) else None


def take(needed: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Select tensors by name and check their shapes and values.

    Args:
        needed: Tensors of a model. BatchNorm's step counters are optional (unused in eval mode).
        given: Tensors of a file.
        source: Named in errors.

    Returns:
        The tensors of ``given`` with the names of ``needed``.

    Raises:
        InputError: A tensor is missing, has a different shape, or holds values that no weights can have.
    """
    taken = {}
    for name, tensor in needed.items():
        if name in given:
            if given[name].shape != tensor.shape:
                found, wanted = list(given[name].shape), list(tensor.shape)
                raise InputError(f"{source}: tensor {name!r} is {found}, the model needs {wanted}")
            fault = _fault(name, given[name], tensor)
            if fault:
                raise InputError(f"{source}: tensor {name!r} {fault}")
            taken[name] = given[name]
        elif name.endswith("num_batches_tracked"):
            taken[name] = tensor
        else:
            longer = next((other for other in given if other.endswith(f".{name}")), None)
            hint = "" if longer is None else (
                f"; the file has it as {longer!r}: save the weights of the network alone, without the prefix "
                f"{longer.removesuffix(name)!r}"
            )  # fmt: skip
            raise InputError(f"{source}: tensor {name!r} {list(tensor.shape)} is missing{hint}")
    return taken


def _fault(name: str, found: Tensor, wanted: Tensor) -> str:
    """Why a tensor of the right shape cannot be a weight; "" if it can."""
    if found.is_quantized or found.is_meta or found.layout != torch.strided:
        return "is quantised, sparse or without values; save it as an ordinary tensor"
    if found.is_floating_point() != wanted.is_floating_point():
        return f"has values of type {found.dtype}, the model needs {wanted.dtype}"
    if not torch.isfinite(found.float()).all():
        return "has values that are not finite: did its training diverge?"
    if name.endswith("running_var") and (found.float() < 0).any():
        return "has negative variances: the file is corrupted"
    return ""


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and values in name order, without BatchNorm's step counters.

    Equal for equal weights, whatever file format they came in.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
