"""What a strategy is shown in evaluation does not stay with it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from iufbench.support.errors import RunError


@contextmanager
def untouched(strategy: Any) -> Iterator[None]:
    """Evaluate inside of this: afterwards the strategy is what it was.

    Attributes of the strategy, its plugins and its modules, and the lists, dicts, sets and deques in them,
    are put back: no test image is remembered by accident or on purpose. Raises RunError naming the part
    when the state that goes on to the next experience (``strategy.state()``) has changed: a learner that
    learns from test images has no result.
    """
    before = digests(strategy.state())
    holders = [strategy, *strategy.plugins, *strategy.model.modules()]
    attributes = [(holder, dict(vars(holder))) for holder in holders if hasattr(holder, "__dict__")]
    containers: dict[int, tuple[Any, Any]] = {}
    for _, values in attributes:
        for value in values.values():
            _remember(value, containers)
    yield
    for holder, values in attributes:
        vars(holder).clear()
        vars(holder).update(values)
    for container, content in containers.values():
        container.clear()
        (container.extend if isinstance(container, (list, deque)) else container.update)(content)
    after = digests(strategy.state())
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise RunError(f"the strategy learnt while it was evaluated: {changed[0]} of its state has changed")


def _remember(value: Any, found: dict[int, tuple[Any, Any]]) -> None:
    """Every container in ``value`` with a copy of what it holds."""
    if not isinstance(value, (list, dict, set, deque, tuple)) or id(value) in found:
        return
    if not isinstance(value, tuple):
        found[id(value)] = (value, value.copy())
    for item in list(value.values() if isinstance(value, dict) else value):
        _remember(item, found)


def digests(state: Any, name: str = "") -> dict[str, str]:
    """dotted name -> hash of every tensor and value in what ``strategy.state()`` returns."""
    if isinstance(state, Mapping):
        parts = [digests(value, f"{name}.{key}" if name else str(key)) for key, value in state.items()]
    elif isinstance(state, (list, tuple)):
        parts = [digests(value, f"{name}[{i}]") for i, value in enumerate(state)]
    else:
        return {name: _digest(state)}
    return {key: value for part in parts for key, value in part.items()}


def _digest(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest() + f" {value.dtype} {tuple(value.shape)}"
