"""Replaces CUDA graphs on the CPU: operations are recorded and repeated on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal")


class Recording(TorchDispatchMode):
    """While active, every operation is executed and recorded; ``replay`` executes all of them again.

    As with a CUDA graph, Python is not executed again: values that it read (a number, a shape, a branch) are
    fixed, tensors keep their memory, and random generators advance. Operations that read a number from the
    device raise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name in WAITS:
            raise RuntimeError(f"{function._schema.name} waits for the device")
        result = function(*args, **(kwargs or {}))
        self._calls.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self._calls:
            aliases = [value.alias_info for value in function._schema.returns]
            if any(alias is not None and not alias.is_write for alias in aliases):
                continue  # a view: it still shows the memory that it showed
            again = function(*args, **kwargs)
            if all(alias is None for alias in aliases):
                for old, new in zip(tree_leaves(result), tree_leaves(again)):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class Recorder:
    """Replaces ``iufbench.learning.step.CudaGraphs``. ``replays``: number of replays."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def run(self, function: Callable[[], None], strict: bool = False) -> None:
        if strict:
            with Recording():
                function()
        else:
            function()

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        recording = Recording()
        with recording:
            function()

        def replay() -> None:
            self.replays += 1
            recording.replay()

        return replay
