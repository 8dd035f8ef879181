"""The local engine: several processes on this machine, each executing one run after another."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iufbench.engine.stopping import hang_up
from iufbench.support.memory import free_memory, resident_memory
from iufbench.support.progress import Progress
from iufbench.sweeps.board import Board
from iufbench.sweeps.inputs import prepare_inputs
from iufbench.sweeps.order import Order
from iufbench.sweeps.record import INTERRUPTED
from iufbench.sweeps.runs import FAILED, PlannedRun
from iufbench.sweeps.worker import TRAIN, task_line

PATIENCE = 30.0  # seconds that an interrupted run may take to save its state
PERIOD = 1.0
MIB = 2**20
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class Slot:
    """A place for a worker process: the GPU it sees (None: all), the process, its current run."""

    gpu: str | None
    process: subprocess.Popen[str] | None = None
    run: PlannedRun | None = None
    since: float = 0.0


class LocalEngine:
    """Executes runs in worker processes of this machine.

    A run starts only if the memory it is expected to need is free, or if no other run is in progress.

    Args:
        jobs: Number of processes.
        threads: Threads per process.
        gpus: GPUs, assigned to the processes in turn.
        function: Executes a run in a worker, as ``module:function``.
        free: Returns the free memory in bytes.
    """

    def __init__(
        self,
        jobs: int,
        threads: int,
        gpus: Sequence[str] = (),
        function: str = TRAIN,
        free: Callable[[], float] = free_memory,
    ) -> None:
        self.jobs, self._threads, self._function, self._free = jobs, threads, function, free
        self._slots = [Slot(gpus[k % len(gpus)] if gpus else None) for k in range(jobs)]
        self._selector = selectors.DefaultSelector()
        self._warned = False

    def check(self, runs: Sequence[PlannedRun]) -> None:
        """Nothing to check: planning has checked everything on this machine."""

    def prepare(self, runs: Sequence[PlannedRun], progress: Progress) -> None:
        """Fill the caches that several runs read before they start in parallel."""
        if self._function == TRAIN:
            prepare_inputs(runs, progress)

    def run(self, order: Order, board: Board) -> None:
        """Execute all runs. A stop signal interrupts them; then KeyboardInterrupt is raised."""
        before = {n: signal.signal(n, _as_interrupt) for n in (signal.SIGTERM, *hang_up())}
        try:
            while len(order) or board.running:
                for slot in self._slots:
                    if slot.run is None and not self._fill(slot, order, board):
                        break
                for key, _ in self._selector.select(PERIOD):
                    self._hear(key.data, order, board)
                board.tick()
        except KeyboardInterrupt:
            self._stop(order, board)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._dismiss()

    def _fill(self, slot: Slot, order: Order, board: Board) -> bool:
        """Start the next run in the slot; False if none can start now."""
        run = order.next(lambda candidate: self._fits(candidate, board))
        if run is None:
            return False
        slot.run, slot.since = run, time.perf_counter()
        if slot.process is None:
            slot.process = self._hire(slot)
        assert slot.process.stdin is not None
        board.started(run)
        line = task_line(run.request, board.record.log(run), board.record.live(run), order.bases(run))
        # A process that died while idle is noticed next, and reported as this run's failure.
        with contextlib.suppress(BrokenPipeError):
            slot.process.stdin.write(line)
            slot.process.stdin.flush()
        return True

    def _fits(self, run: PlannedRun, board: Board) -> bool:
        if not board.running:
            need, free = board.memory_of(run), self._free() / MIB
            if need > free and not self._warned:
                self._warned = True
                board.warn(f"{run.label} may need {need:.0f} MiB, {free:.0f} MiB are free: it runs alone")
            return True
        # Runs that have just started have not allocated all their memory yet.
        growing = sum(
            max(0.0, board.memory_of(slot.run) - resident_memory(slot.process.pid) / MIB)
            for slot in self._slots
            if slot.run is not None and slot.process is not None
        )
        return self._free() / MIB - growing >= board.memory_of(run)

    def _hire(self, slot: Slot) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "iufbench.sweeps.worker", self._function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(self._threads, slot.gpu),
            start_new_session=True,  # Ctrl-C reaches only the driver, which then stops its processes
        )
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, slot)
        return process

    def _hear(self, slot: Slot, order: Order, board: Board) -> None:
        """Handle the reply of a worker, or its death."""
        assert slot.process is not None and slot.process.stdout is not None
        line = slot.process.stdout.readline()
        run, seconds = slot.run, time.perf_counter() - slot.since
        if not line:
            self._selector.unregister(slot.process.stdout)
            code = slot.process.wait()
            slot.process.stdout.close()
            slot.process = None
        if run is None:
            return
        slot.run = None
        order.over(run)
        if line:
            outcome = json.loads(line)
            board.finished(run, outcome["state"], outcome["seconds"], outcome["error"])
        else:
            board.finished(run, FAILED, seconds, f"its process {ended(code)}; see {board.record.log(run)}")

    def _stop(self, order: Order, board: Board) -> None:
        """Interrupt all runs and wait until they have saved their state."""
        board.screen.say(f"stopping {len(board.running)} runs (Ctrl-C again: immediately)")
        patience, kind = time.perf_counter() + PATIENCE, signal.SIGINT
        try:
            self._signal(kind)
            while board.running and time.perf_counter() < patience:
                for key, _ in self._selector.select(PERIOD):
                    self._hear_stopping(key.data, order, board)
        except KeyboardInterrupt:
            pass
        self._signal(signal.SIGKILL)
        for slot in self._slots:
            if slot.run is not None:
                board.finished(slot.run, INTERRUPTED)

    def _hear_stopping(self, slot: Slot, order: Order, board: Board) -> None:
        """As ``_hear``, but the end of a process is expected."""
        assert slot.process is not None and slot.process.stdout is not None
        line = slot.process.stdout.readline()
        if slot.run is not None:
            outcome: dict[str, Any] = (
                json.loads(line) if line else {"state": INTERRUPTED, "seconds": 0.0, "error": ""}
            )
            board.finished(slot.run, outcome["state"], outcome["seconds"], outcome["error"])
            order.over(slot.run)
            slot.run = None
        if not line:
            self._selector.unregister(slot.process.stdout)
            slot.process.wait()
            slot.process = None

    def _signal(self, number: int) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.run is not None and slot.process.poll() is None:
                slot.process.send_signal(number)

    def _dismiss(self) -> None:
        """Close the workers' inputs, on which idle ones exit, and kill busy ones."""
        for slot in self._slots:
            if slot.process is not None and slot.process.stdin is not None:
                with contextlib.suppress(OSError):
                    slot.process.stdin.close()
                if slot.run is not None:
                    slot.process.kill()
                slot.process.wait()
                slot.process = None
        self._selector.close()


def environment(threads: int, gpu: str | None) -> Mapping[str, str]:
    """The environment of a process with a number of threads that sees one GPU (None: all)."""
    pinned = {name: str(threads) for name in THREAD_VARIABLES}
    visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    return {**os.environ, **pinned, **visible}


def ended(code: int) -> str:
    """Describe how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
