"""One training iteration: eager, or captured once as CUDA graphs and replayed with static inputs.

On a GPU an iteration is hundreds of small kernels, and launching them from Python takes longer than running
them. A captured iteration is a single launch. A strategy defines the parts of its iteration (``forward``,
``losses``, Avalanche's callbacks around the update) and is unaware of graphs; computations that synchronise
with the device cannot be captured and go into ``losses_apart``, which is computed between two graphs.

A replay repeats the same operations on the same memory. Inputs are therefore copied into static tensors, the
learning rate is a tensor, all state is updated in place, and changes made by the warm-up are undone. A shape
of batches, such as that of an epoch's smaller last batch, is captured when it occurs for the second time;
before that, and where iterations cannot be captured, they run eagerly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from iufbench.cards.strategies import Recipe
from iufbench.support.errors import RunError
from iufbench.support.nested import flat
from iufbench.support.seeding import set_random_states

WARM_UP = 3  # iterations before the capture: libraries allocate and choose kernels in the first ones
MOST_SHAPES = 4  # of batches that are captured in one experience
COMPILE_FROM = 25_000  # iterations: torch.compile takes about 40 s and saves about 2 ms each on an H100
_SILENT = (
    "avalanche.core",
    "avalanche.evaluation.metric_definitions",
    "avalanche.training.plugins.evaluation",
)
Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # of the tensors of a batch, by name
CALLBACKS = ("forward", "backward", "update")  # whose before_ and after_ callbacks lie inside an iteration


class Capture(Protocol):
    """Turns a function into one that repeats its operations on the same memory."""

    def run(self, function: Callable[[], None], strict: bool = False) -> None:
        """Run a function in the environment in which it would be captured.

        Args:
            function: The function.
            strict: Raise RuntimeError if it synchronises with the device: it could not be captured.
        """

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Capture a function and return a function that replays it."""


def eager(strategy: Any) -> None:
    """Run Avalanche's training iteration on ``strategy.mbatch``, without its outermost callbacks."""
    _begin(strategy)
    strategy.loss += strategy.criterion()
    strategy._before_backward()
    strategy.backward()
    _update(strategy)


def why_recipe_eager(recipe: Recipe) -> str | None:
    """Why no strategy with this recipe can be captured, None if it may."""
    network = recipe.network
    if network.jitter_scale > 0 and 0 < network.jitter_probability < 1:
        return "whether features are jittered is drawn on the CPU (network.jitter_probability)"
    if "stable_adamw" in (recipe.base.optimizer, recipe.increment.optimizer):
        return "the optimiser stable_adamw cannot be captured (adamw and sgd can)"
    return None


def why_eager(strategy: Any) -> str | None:
    """Why a strategy's iteration cannot be captured, as far as is known in advance; None if it can."""
    reason = strategy.not_captured or why_recipe_eager(strategy.recipe)
    if reason is not None:
        return reason
    if not all("fused" in group for group in strategy.optimizer.param_groups):
        return "its optimiser cannot be captured (AdamW and SGD can)"
    if any(group.get("dampening") for group in strategy.optimizer.param_groups):
        return "its optimiser treats the first iteration differently (dampening)"
    for plugin in strategy.plugins:
        for listener in (plugin, *getattr(plugin, "metrics", ())):
            for name in CALLBACKS:
                if _listens(listener, f"before_{name}") or _listens(listener, f"after_{name}"):
                    return f"the plugin {type(listener).__name__} acts inside an iteration"
    return None


def worth_compiling(strategy: Any) -> bool:
    """Whether the rest of the experience is long enough for ``torch.compile`` to save time overall."""
    left = (strategy.train_epochs - strategy.clock.train_exp_epochs) * len(strategy.dataloader)
    return strategy.device.type == "cuda" and left >= COMPILE_FROM


class Step:
    """Runs the iterations of one experience.

    The iterations of a long experience are compiled before they are captured, if that saves time overall.

    Args:
        strategy: The strategy; ``context.step`` is auto, eager or graph.
        capture: Turns a function into one that replays it; None for CUDA graphs on a CUDA device and no
            capture elsewhere.

    Attributes:
        reason: Why iterations run eagerly on a device that supports capture; None if they do not.
        note: What the user should know about how iterations are executed, or None.
    """

    def __init__(self, strategy: Any, capture: Capture | None = None) -> None:
        self._strategy = strategy
        self.reason: str | None = None
        self.note: str | None = None
        device, wish = strategy.device, strategy.context.step
        if wish == "eager" or not strategy.uses.gradients:
            capture = None
        elif capture is None and device.type == "cuda":
            capture = CudaGraphs(device)
        self._capture = capture
        if capture is not None and (reason := why_eager(strategy)) is not None:
            self._give_up(reason)
        self._graphs: dict[Shapes, Graphs] = {}
        self._seen: set[Shapes] = set()

    def __call__(self) -> None:
        """Run one iteration on ``strategy.mbatch``."""
        strategy = self._strategy
        if self._capture is not None and not self._seen:
            self._begin(self._capture)
        if self._capture is not None:
            shapes = _shapes(strategy.mbatch)
            if shapes in self._seen and shapes not in self._graphs and len(self._graphs) < MOST_SHAPES:
                self._add(shapes, self._capture)
            self._seen.add(shapes)
            if shapes in self._graphs:
                self._graphs[shapes].replay(strategy.mbatch)
                return
        if self._capture is not None:
            self._capture.run(lambda: eager(strategy))
        else:
            eager(strategy)

    def _begin(self, capture: Capture) -> None:
        strategy = self._strategy
        _prepare_optimizer(strategy)
        if strategy.context.compile:
            return
        strategy.compile_network(worth_compiling(strategy))
        if strategy.compiled:
            with Restored(strategy):
                try:
                    capture.run(lambda: eager(strategy))
                except RuntimeError as error:  # no C compiler or Triton, a network that it cannot compile
                    strategy.compile_network(False)
                    self.note = f"torch.compile failed ({_first_line(error)}): training without it"

    def _add(self, shapes: Shapes, capture: Capture) -> None:
        """Capture the iteration for batches of the current shape."""
        strategy, batch = self._strategy, self._strategy.mbatch
        with Restored(strategy):
            try:
                self._graphs[shapes] = Graphs(strategy, capture)
            except RuntimeError as error:  # an undeclared synchronisation with the device
                self._give_up(_first_line(error))
        strategy.mbatch = batch

    def _give_up(self, reason: str) -> None:
        if self._strategy.context.step == "graph":
            raise RunError(f"--step graph: the iteration cannot be captured: {reason}")
        self.reason, self._capture = reason, None
        self.note = f"iterations are executed eagerly: {reason}"


class Graphs:
    """The captured iteration: everything up to the loss, ``losses_apart``, and everything after it."""

    def __init__(self, strategy: Any, capture: Capture) -> None:
        self._strategy = strategy
        self._batch = strategy.mbatch = _on_tensors(torch.clone, strategy.mbatch)
        self._apart: list[Tensor] = []
        self._gradients: list[Tensor] | None = None
        for number in range(WARM_UP):
            strict = number == WARM_UP - 1  # libraries and torch.compile synchronise in the first ones
            capture.run(self._up_to_the_loss, strict)
            self._between()
            capture.run(self._from_the_loss_on, strict)
        self._first = capture(self._up_to_the_loss)
        self._second = capture(self._from_the_loss_on)
        # Without the autograd graph: its nodes would take part in later backward passes.
        self._apart = [tensor.detach() for tensor in self._apart]
        self._output = _on_tensors(torch.detach, strategy.mb_output)
        self._loss = strategy.loss.detach()

    def replay(self, batch: Any) -> None:
        """Run the iteration on another batch."""
        given, strategy = _inputs(batch), self._strategy
        for name, tensor in _inputs(self._batch).items():
            tensor.copy_(given[name], non_blocking=True)
        strategy.mbatch = self._batch
        self._first()
        self._between()
        self._second()
        strategy.mb_output, strategy.loss = self._output, self._loss

    def _up_to_the_loss(self) -> None:
        strategy = self._strategy
        _begin(strategy)
        strategy.loss += strategy.summed(strategy.losses())
        self._apart = strategy.apart()

    def _between(self) -> None:
        """Run ``losses_apart`` eagerly and store its value and gradients in static tensors."""
        if self._gradients is None:
            self._gradients = [torch.zeros_like(tensor) for tensor in self._apart]
            self._loss_apart = torch.zeros_like(self._strategy.loss)
        if not self._apart:
            return
        leaves = [tensor.detach().requires_grad_() for tensor in self._apart]
        loss = self._strategy.summed(self._strategy.losses_apart(leaves))
        self._loss_apart.copy_(loss.detach())
        if loss.requires_grad:  # else they stay 0
            for static, gradient in zip(self._gradients, torch.autograd.grad(loss, leaves)):
                static.copy_(gradient)

    def _from_the_loss_on(self) -> None:
        strategy = self._strategy
        strategy._before_backward()
        if self._apart:
            assert self._gradients is not None
            torch.autograd.backward(
                [strategy.loss, *self._apart], [torch.ones_like(strategy.loss), *self._gradients]
            )
            strategy.loss.detach().add_(self._loss_apart)
        else:
            strategy.backward()
        _update(strategy)


class CudaGraphs:
    """Captures functions as CUDA graphs that share one memory pool.

    All of them, and all eager iterations between them, run on one stream of the process: autograd nodes
    remember their stream, and one that is still alive and belongs to another stream spoils a capture.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, _side_stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], None], strict: bool = False) -> None:
        """Run a function once on the stream on which it would be captured."""
        outside, mode = torch.cuda.current_stream(self._device), torch.cuda.get_sync_debug_mode()
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                torch.cuda.set_sync_debug_mode("error" if strict else mode)
                function()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            outside.wait_stream(self._stream)

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        try:
            self._record(graph, function)
        except RuntimeError:
            # A failed capture leaves the random generator in capture mode; a successful one resets it.
            with suppress(RuntimeError):
                self._record(torch.cuda.CUDAGraph(), lambda: torch.zeros(1, device=self._device))
            raise
        return graph.replay

    def _record(self, graph: torch.cuda.CUDAGraph, function: Callable[[], object]) -> None:
        # The outer context: torch.cuda.graph leaves its stream current when the capture fails.
        # thread_local: a thread that prefetches batches may allocate pinned memory during the capture.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            torch.cuda.graph(graph, self._pool, self._stream, "thread_local"),
        ):
            function()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class Restored:
    """Context manager for trial iterations: on exit, everything they changed is restored in place."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy

    def __enter__(self) -> None:
        strategy = self._strategy
        self._within = strategy._named("within")
        self._random = strategy.state_within()["random"]
        self._before = {name: tensor.detach().clone() for name, tensor in self._live().items()}

    def __exit__(self, *exception: Any) -> None:
        strategy = self._strategy
        with torch.no_grad():
            for name, tensor in self._live().items():
                # A sum or a moment that did not exist before began at 0.
                tensor.copy_(self._before[name]) if name in self._before else tensor.zero_()
        tensors = {n for n, value in self._within.items() if isinstance(value, Tensor | dict)}
        for name in set(self._within) - tensors:
            setattr(strategy, name, self._within[name])
        set_random_states(self._random, getattr(strategy.dataloader, "generator", None))

    def _live(self) -> dict[str, Tensor]:
        strategy = self._strategy
        within = {n: v for n, v in strategy._named("within").items() if isinstance(v, Tensor | dict)}
        state = {
            "network": strategy.model.state_dict(),
            "optimizer": strategy.optimizer.state_dict()["state"],
            "sums": strategy._sums,
            "within": within,
        }
        return {name: value for name, value in flat(state).items() if isinstance(value, Tensor)}


def _begin(strategy: Any) -> None:
    strategy.optimizer.zero_grad()
    strategy.loss = strategy._make_empty_loss()
    strategy._before_forward()
    strategy.mb_output = strategy.forward()
    strategy._after_forward()


def _update(strategy: Any) -> None:
    strategy._after_backward()
    strategy._before_update()
    strategy.optimizer_step()
    strategy._after_update()


def _inputs(batch: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in flat(vars(batch)).items() if tensor is not None}


def _shapes(batch: Any) -> Shapes:
    return tuple((name, tuple(tensor.shape)) for name, tensor in _inputs(batch).items())


def _on_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A copy of nested values with a function applied to every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: _on_tensors(function, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_tensors(function, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{n: _on_tensors(function, item) for n, item in vars(value).items()})
    return value


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _prepare_optimizer(strategy: Any) -> None:
    """Make learning rates tensors, which schedules update in place, and avoid steps that synchronise."""
    for group in strategy.optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=strategy.device)
        group["fused"], group["foreach"] = True, None
        if "capturable" in group:
            group["capturable"] = strategy.device.type == "cuda"


def _listens(plugin: Any, callback: str) -> bool:
    """Whether a plugin implements a callback: Avalanche's base classes define all of them as no-ops."""
    method = getattr(type(plugin), callback, None)
    return method is not None and method.__module__ not in _SILENT
