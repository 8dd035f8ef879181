"""One training iteration: eager, or captured once as CUDA graphs and replayed with static inputs.

On a GPU an iteration is hundreds of small kernels, and launching them from Python takes longer than running
them. A captured iteration is a single launch. A strategy defines the parts of its iteration (``forward``,
``losses``, Avalanche's callbacks around the update) and is unaware of graphs; computations that synchronise
with the device cannot be captured and go into ``losses_apart``, which is computed between two graphs.

A replay repeats the same operations on the same memory. Inputs are therefore copied into static tensors, the
learning rate is a tensor, all state is updated in place, and changes made by the warm-up are undone before
training begins. Batches of a different size, such as the last one of an epoch, and iterations that cannot be
captured run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from iufbench.support.errors import RunError
from iufbench.support.nested import flat
from iufbench.support.seeding import set_random_states

WARM_UP = 3  # iterations before the capture: libraries allocate and choose kernels in the first ones
COMPILE_FROM = 25_000  # iterations: torch.compile takes about 40 s and saves about 2 ms each on an H100
_SILENT = (
    "avalanche.core",
    "avalanche.evaluation.metric_definitions",
    "avalanche.training.plugins.evaluation",
)
CALLBACKS = ("forward", "backward", "update")  # whose before_ and after_ callbacks lie inside an iteration


class Capture(Protocol):
    """Turns a function into one that repeats its operations on the same memory."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function in the environment in which it will be captured."""

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Capture a function and return a function that replays it."""


def eager(strategy: Any) -> None:
    """Run Avalanche's training iteration on ``strategy.mbatch``, without its outermost callbacks."""
    _begin(strategy)
    strategy.loss += strategy.criterion()
    strategy._before_backward()
    strategy.backward()
    _update(strategy)


def why_eager(strategy: Any) -> str | None:
    """Why a strategy's iteration cannot be captured, as far as is known in advance; None if it can."""
    network = strategy.recipe.network
    if strategy.not_captured is not None:
        return strategy.not_captured
    if network.jitter_scale > 0 and 0 < network.jitter_probability < 1:
        return "whether features are jittered is drawn on the CPU (network.jitter_probability)"
    if not all("fused" in group for group in strategy.optimizer.param_groups):
        return "its optimiser cannot be captured (AdamW and SGD can)"
    for plugin in strategy.plugins:
        for listener in (plugin, *getattr(plugin, "metrics", ())):
            for name in CALLBACKS:
                if _listens(listener, f"before_{name}") or _listens(listener, f"after_{name}"):
                    return f"the plugin {type(listener).__name__} acts inside an iteration"
    return None


class Step:
    """Runs the iterations of one experience.

    The iterations of a long experience are compiled before they are captured, if that saves time overall.

    Args:
        strategy: The strategy; ``context.step`` is auto, eager or graph.
        capture: Turns a function into one that replays it; None for CUDA graphs on a CUDA device and no
            capture elsewhere.

    ``reason``: why iterations run eagerly on a device that supports capture; None if they do not.
    """

    def __init__(self, strategy: Any, capture: Capture | None = None) -> None:
        self._strategy = strategy
        self.reason: str | None = None
        device, wish = strategy.device, strategy.context.step
        if wish == "eager" or not strategy.uses.gradients:
            capture = None
        elif capture is None and device.type == "cuda":
            capture = CudaGraphs()
        if capture is not None:
            self.reason = why_eager(strategy)
        if self.reason is not None:
            if wish == "graph":
                raise RunError(f"--step graph: the iteration cannot be captured: {self.reason}")
            capture = None
        self._capture = capture
        self._graphs: Graphs | None = None

    def __call__(self) -> None:
        """Run one iteration on ``strategy.mbatch``."""
        strategy = self._strategy
        if self._capture is None:
            eager(strategy)
            return
        if self._graphs is None and len(strategy.mbatch) == strategy.train_mb_size:
            self._graphs = self._captured()
        if self._graphs is not None and self._graphs.fits(strategy.mbatch):
            self._graphs.replay(strategy.mbatch)
        else:
            eager(strategy)

    def _captured(self) -> Graphs | None:
        strategy, capture = self._strategy, self._capture
        assert capture is not None
        _prepare_optimizer(strategy)
        iterations = strategy.train_epochs * len(strategy.dataloader)
        if strategy.device.type == "cuda" and iterations >= COMPILE_FROM:
            strategy.compile_network()
        batch, graphs = strategy.mbatch, None
        with Restored(strategy):
            try:
                graphs = Graphs(strategy, capture)
            except RuntimeError as error:  # an undeclared synchronisation with the device
                if strategy.context.step == "graph":
                    raise RunError(f"--step graph: the iteration cannot be captured: {error}") from error
                self.reason, self._capture = f"capturing failed ({str(error).splitlines()[0]})", None
        strategy.mbatch = batch
        return graphs


class Graphs:
    """The captured iteration: everything up to the loss, ``losses_apart``, and everything after it."""

    def __init__(self, strategy: Any, capture: Capture) -> None:
        self._strategy = strategy
        self._batch = _static(strategy.mbatch)
        strategy.mbatch = self._batch
        for _ in range(WARM_UP):
            capture.warm_up(lambda: eager(strategy))
        self._apart: list[Tensor] = []
        self._first = capture(self._up_to_the_loss)
        self._gradients = [torch.zeros_like(tensor) for tensor in self._apart]
        self._loss_apart = torch.zeros_like(strategy.loss)
        self._output, self._loss = strategy.mb_output, strategy.loss
        self._second = capture(self._from_the_loss_on)

    def fits(self, batch: Any) -> bool:
        """Whether a batch has the shapes that were captured."""
        return _shapes(batch) == _shapes(self._batch)

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
            torch.autograd.backward(
                [strategy.loss, *self._apart], [torch.ones_like(strategy.loss), *self._gradients]
            )
            strategy.loss.detach().add_(self._loss_apart)
        else:
            strategy.backward()
        _update(strategy)


class CudaGraphs:
    """Captures functions as CUDA graphs that share one memory pool and one stream."""

    def __init__(self) -> None:
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function once on the stream on which it will be captured."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            function()
        torch.cuda.current_stream().wait_stream(self._stream)

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            function()
        return graph.replay


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


def _shapes(batch: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _inputs(batch).items()}


def _static(batch: Any) -> Any:
    """A copy of a batch with its own tensors."""

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: copied(item) for name, item in value.items()}
        return value.clone() if isinstance(value, Tensor) else value

    return replace(batch, **{name: copied(value) for name, value in vars(batch).items()})


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
