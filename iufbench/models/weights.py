"""Weight files: read without executing code from them, checked against a model, fingerprinted."""

from __future__ import annotations

import codecs
import hashlib
import os
import pickle
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


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read tensors without executing code from the file (``weights_only=True``).

    Args:
        path: A ``.safetensors``, ``.pth`` or ``.pt`` file; tensors may be nested under ``state_dict`` or
            ``model``.

    Returns:
        Tensors by name, on the CPU, without ``module.`` prefixes.

    Raises:
        InputError: The file does not exist, is corrupted, or has no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_NUMBERS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"weights: {path} is corrupted or holds more than tensors and numbers; save only its state dict, "
            "with torch.save(state_dict, FILE)"
        ) from error
    except Exception as error:  # zip, pickle and safetensors raise different errors for a corrupted file
        if lacks_memory(error):
            raise
        raise InputError(f"weights: {path} cannot be read as a state dict ({_first_line(error)})") from error
    for key in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"weights: {path} holds no state dict (names and tensors)")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def take(needed: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Select tensors by name and check their shapes.

    Args:
        needed: Tensors of a model. BatchNorm's step counters are optional (unused in eval mode).
        given: Tensors of a file.
        source: Named in errors.

    Returns:
        The tensors of ``given`` with the names of ``needed``.

    Raises:
        InputError: A tensor is missing or has a different shape.
    """
    taken = {}
    for name, tensor in needed.items():
        if name in given:
            if given[name].shape != tensor.shape:
                found, wanted = list(given[name].shape), list(tensor.shape)
                raise InputError(f"{source}: tensor {name!r} is {found}, the model needs {wanted}")
            taken[name] = given[name]
        elif name.endswith("num_batches_tracked"):
            taken[name] = tensor
        else:
            raise InputError(f"{source}: tensor {name!r} {list(tensor.shape)} is missing")
    return taken


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
