"""Comparison of nested states: dicts and lists of tensors, numbers and text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

Key = TypeVar("Key")


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested dicts and lists, by dotted names.

    >>> flat({"base": {"lr": 0.1, "steps": [3, 4]}})
    {'base.lr': 0.1, 'base.steps.0': 3, 'base.steps.1': 4}
    """
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {name: value}
    parts = [flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}


def differing(before: Mapping[Key, Any], now: Mapping[Key, Any]) -> dict[Key, tuple[Any, Any]]:
    """The entries that differ in any bit: name -> (before, now), with None for a missing one.

    NaN equals NaN, for numbers and in tensors.

    >>> differing({"lr": 0.1, "epochs": 2}, {"lr": 0.1, "epochs": 3, "seed": 1})
    {'epochs': (2, 3), 'seed': (None, 1)}
    """
    pairs = {name: (before.get(name), now.get(name)) for name in {**before, **now}}
    return {name: pair for name, pair in pairs.items() if not _same(*pair)}


def digest(value: Any) -> str:
    """A text that is equal for equal values: a hash of a tensor's bits with type and shape, else ``repr``."""
    if not _is_tensor(value):
        return repr(value)
    import torch

    data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest() + f" {value.dtype} {tuple(value.shape)}"


def _same(one: Any, other: Any) -> bool:
    if not (_is_tensor(one) and _is_tensor(other)):
        return not (_is_tensor(one) or _is_tensor(other)) and bool(
            one == other or (one != one and other != other)
        )
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    other = other.to(one.device)
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")  # does not import torch, which tables do not need
