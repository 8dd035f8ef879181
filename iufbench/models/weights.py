"""Weight files: read without running code from them, compare with what a model needs, fingerprint."""

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

# Public checkpoints carry a best metric as a numpy number. Its type and the function that rebuilds it are
# harmless; files from numpy 1 call that function by its old place.
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
    """The tensors of a ``.safetensors``, ``.pth`` or ``.pt`` file, on the CPU, without ``module.`` prefixes.

    A checkpoint that keeps them under ``state_dict`` or ``model`` is unwrapped. Pickles are read with
    ``weights_only=True``. Raises InputError when there is no such file or it holds no tensors.
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
            f"weights: {path} is damaged or holds more than tensors and numbers; save its state dict alone "
            "with torch.save(state_dict, FILE)"
        ) from error
    except Exception as error:  # zip, pickle and safetensors each fail in their own ways on a damaged file
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
    """The tensors of ``given`` that ``needed`` names, all present and of the same shapes.

    BatchNorm's step counters may be missing (they do nothing in eval mode). Raises InputError that names
    the first tensor that is missing or has another shape.
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
