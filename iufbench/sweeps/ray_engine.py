"""The cluster engine: Ray assigns runs to nodes and restarts the runs of lost nodes elsewhere.

A restarted run resumes from its last checkpoint, which every node sends to the driver after each experience
(or writes to a shared results folder). Ray is an optional dependency: ``pip install 'iufbench[ray]'``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress
from iufbench.sweeps.board import Board
from iufbench.sweeps.order import Order
from iufbench.sweeps.ray_node import Assignment, Collector, check_node, do_run
from iufbench.sweeps.record import INTERRUPTED
from iufbench.sweeps.runs import FAILED, PlannedRun
from iufbench.sweeps.worker import TRAIN

RETRIES = 3  # of a run whose process or node was lost
PATIENCE = 30.0
PERIOD = 1.0


class RayEngine:
    """Executes runs on a Ray cluster.

    Args:
        address: host:port of its head, or ``auto`` for the cluster this machine belongs to.
        shared: All nodes see the results folder under the same path.
        function: Executes a run on a node, as ``module:function``.

    Raises:
        InputError: Ray is not installed, or no head responds at the address.
    """

    def __init__(self, address: str = "auto", shared: bool = False, function: str = TRAIN) -> None:
        self._ray = connect(address)
        self._shared, self._function = shared, function
        self._node = self._ray.get_runtime_context().get_node_id()
        self.jobs = 1

    def _room(self, cpus: float, gpus: float) -> int:
        """How many runs of that size the living nodes can execute in parallel."""
        return sum(fitting(node, cpus, gpus) for node in self._nodes())

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _largest_memory(self) -> float:
        """Bytes of the largest node; a run that is expected to need more is placed there anyway."""
        return max((node["Resources"].get("memory", 0.0) for node in self._nodes()), default=0.0)

    def check(self, runs: Sequence[PlannedRun]) -> None:
        """Check on every node whether it can execute the runs. Raises InputError naming what nodes lack."""
        if not runs:
            return
        nodes = self._nodes()
        for need in dict.fromkeys(map(cpus_and_gpus, runs)):
            if not any(fitting(node, *need) for node in nodes):
                raise InputError(
                    f"no node has the {need[0]:g} CPUs and {need[1]:g} GPUs that a run requests: "
                    "change --cpus-per-run and --gpus-per-run, or the resources on the card"
                )
        self.jobs = self._room(*smallest(runs))
        wanted = {run.data: (run.request.as_dict(), run.data) for run in runs}
        ask = self._ray.remote(check_node)
        found = [
            ask.options(num_cpus=0, scheduling_strategy=self._on(node["NodeID"])).remote(
                list(wanted.values())
            )
            for node in nodes
        ]
        problems: list[str] = []
        for node, reference in zip(nodes, found):
            try:
                problems += self._ray.get(reference)
            except self._ray.exceptions.RayError as error:  # the node is lost or out of memory
                problems.append(f"node {node['NodeManagerHostname']}/{node['NodeID'][:6]}: {_reason(error)}")
        if problems:
            raise InputError("\n  ".join(["some nodes are unusable, nothing was started:", *problems]))

    def prepare(self, runs: Sequence[PlannedRun], progress: Progress) -> None:
        """Every node fills its own caches when its first run needs them."""

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id=node, soft=False)

    def run(self, order: Order, board: Board) -> None:
        """Execute all runs. Ctrl-C cancels them; KeyboardInterrupt is raised when all have stopped."""
        collector = (
            self._ray.remote(Collector)
            .options(num_cpus=0, max_concurrency=8, scheduling_strategy=self._on(self._node))
            .remote()
        )
        task = self._ray.remote(do_run)
        flying: dict[Any, PlannedRun] = {}
        least = smallest(order)
        try:
            while len(order) or flying:
                room, memory = max(self._room(*least), 1), self._largest_memory()
                while len(flying) < room and (run := order.next(lambda _: True)) is not None:
                    cpus, gpus = cpus_and_gpus(run)
                    options = task.options(
                        num_cpus=cpus,
                        num_gpus=gpus,
                        memory=int(min(board.memory_of(run) * 2**20, memory)),
                        max_retries=RETRIES,
                        name=run.label,
                    )
                    board.started(run)
                    flying[options.remote(self._assignment(run, order, board), collector)] = run
                done, _ = self._ray.wait(list(flying), num_returns=1, timeout=PERIOD)
                for reference in done:
                    run = flying.pop(reference)
                    order.over(run)
                    self._tell(board, run, reference)
                board.tick()
        except KeyboardInterrupt:
            self._stop(flying, board)
            raise

    def _assignment(self, run: PlannedRun, order: Order, board: Board) -> Assignment:
        return Assignment(
            number=run.number,
            request=run.request.as_dict(),
            path=str(run.path.absolute()),
            place=run.id,
            function=self._function,
            shared=self._shared,
            log=str(board.record.log(run).absolute()),
            live=str(board.record.live(run).absolute()),
            bases=tuple(str(path.absolute()) for path in order.bases(run)),
        )

    def _tell(self, board: Board, run: PlannedRun, reference: Any) -> None:
        """Report the outcome of a run that has ended."""
        try:
            outcome = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            board.finished(run, INTERRUPTED)
        except self._ray.exceptions.RayError as error:
            board.finished(run, FAILED, error=f"lost {RETRIES + 1} times: {_reason(error)}")
        else:
            board.finished(run, outcome["state"], outcome["seconds"], outcome["error"], outcome["node"])

    def _stop(self, flying: dict[Any, PlannedRun], board: Board) -> None:
        board.screen.say(f"stopping {len(flying)} runs (Ctrl-C again: immediately)")
        end = time.monotonic() + PATIENCE
        try:
            for reference in flying:
                self._ray.cancel(reference, force=False)
            while flying and time.monotonic() < end:
                done, _ = self._ray.wait(list(flying), num_returns=1, timeout=PERIOD)
                for reference in done:
                    self._tell(board, flying.pop(reference), reference)
        except KeyboardInterrupt:
            pass
        for reference, run in flying.items():
            self._ray.cancel(reference, force=True)
            board.finished(run, INTERRUPTED)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def cpus_and_gpus(run: PlannedRun) -> tuple[float, float]:
    """The CPUs and GPUs that a run occupies on a node."""
    return run.resources.cpus or 1, run.resources.gpus or 0


def smallest(runs: Iterable[PlannedRun]) -> tuple[float, float]:
    """The smallest numbers of CPUs and GPUs that any run requests; Ray queues runs that do not fit yet."""
    cpus, gpus = zip(*map(cpus_and_gpus, runs))
    return min(cpus), min(gpus)


def fitting(node: dict[str, Any], cpus: float, gpus: float) -> int:
    """How many runs of that size a node can execute in parallel."""
    has = node["Resources"]
    fits = [has.get("CPU", 0.0) / cpus] + ([has.get("GPU", 0.0) / gpus] if gpus else [])
    return int(min(fits))


def connect(address: str) -> Any:
    """Connect to a cluster.

    Args:
        address: host:port of its head, or ``auto``.

    Returns:
        The ``ray`` module.

    Raises:
        InputError: Ray is not installed, or no head responds at the address.
        RunError: The head runs another version of Python or Ray.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray requires Ray: pip install 'iufbench[ray]'") from error
    host, colon, port = address.rpartition(":")
    how = "start it with ray start --head --port 6379, and on other machines: ray start --address HOST:6379"
    if colon:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise InputError(f"--address {address}: no Ray head responds ({error}); {how}") from error
    elif address != "auto":
        raise InputError(f"--address {address}: must be host:port or auto")
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray head responds; {how}") from error
    except RuntimeError as error:  # the head runs another version of Python or Ray
        raise RunError(f"--address {address}: {str(error).strip().splitlines()[0]}") from error
    return ray


def default_address() -> str:
    """``$RAY_ADDRESS``, else the cluster that this machine belongs to."""
    return os.environ.get("RAY_ADDRESS") or "auto"
