"""Two sides of a comparison that take turns, each with its own process, memory and allocator."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from iufbench.bench.timing import Timing
from iufbench.support.provenance import peak_memory_mb


class Worker:
    """A process that calls ``make(*arguments)()`` when told to. ``make`` runs once, in that process."""

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, make, arguments, threads), daemon=True)
        self._process.start()

    def turn(self) -> tuple[float, float, float, object]:
        """CPU seconds, wall seconds, peak MiB of the process so far, and what the call returned."""
        self._pipe.send(True)
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        self._pipe.send(False)
        self._process.join()


def _work(pipe: Any, make: Callable[..., Callable[[], object]], arguments: tuple, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        call = make(*arguments)
        while pipe.recv():
            wall, cpu = time.perf_counter(), time.process_time()
            result = call()
            pipe.send((time.process_time() - cpu, time.perf_counter() - wall, peak_memory_mb(), result))
    except BaseException as error:
        pipe.send(error)


def compare(
    workers: dict[str, Worker], repeats: int, warm_up: int = 1
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Timings of the sides turn by turn after ``warm_up`` turns that do not count, and their peaks in MiB."""
    timings = {name: Timing([], []) for name in workers}
    peaks = {}
    for turn in range(warm_up + repeats):
        for name, worker in workers.items():
            cpu, wall, peaks[name], _ = worker.turn()
            if turn >= warm_up:
                timings[name].cpu.append(cpu)
                timings[name].wall.append(wall)
    for worker in workers.values():
        worker.close()
    return timings, peaks
