"""A sweep from end to end: plan, skip finished runs, pass the rest to an engine, summarise."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from iufbench.cards.request import command
from iufbench.cards.strategies import Resources
from iufbench.reporting.rundir import claimed
from iufbench.support.processes import cores
from iufbench.support.progress import Progress
from iufbench.sweeps.board import Board
from iufbench.sweeps.estimate import Costs, describe, measured_costs
from iufbench.sweeps.grid import Grid
from iufbench.sweeps.local import LocalEngine
from iufbench.sweeps.order import Order
from iufbench.sweeps.record import Record
from iufbench.sweeps.runs import COMPLETE, FAILED, PlannedRun
from iufbench.sweeps.screen import Screen
from iufbench.sweeps.slurm import write_array


class Engine(Protocol):
    """Whatever does runs: it takes them from ``order`` and tells ``board`` what becomes of them.

    ``check`` raises InputError where runs could not be done, before anything is started;
    ``prepare`` makes what several of them read.
    """

    jobs: int

    def check(self, runs: Sequence[PlannedRun]) -> None: ...

    def prepare(self, runs: Sequence[PlannedRun], progress: Progress) -> None: ...

    def run(self, order: Order, board: Board) -> None: ...


@dataclass
class Sweep:
    """All runs of a grid. ``todo`` are those that a call would do."""

    name: str
    grid: Mapping[str, Any]
    runs: Sequence[PlannedRun]
    results: Path
    retry_failed: bool = False

    @property
    def folder(self) -> Path:
        return self.results / "sweeps" / self.name

    def failed(self) -> dict[str, str]:
        """Run id -> reason of what failed before: its directory says so or, if its process died, an event."""
        events = Record(self.folder).events()
        found = {}
        for run in self.runs:
            known = events.get(run.id)
            died = known is not None and known.state == FAILED
            if run.state == FAILED or (died and run.state != COMPLETE):
                found[run.id] = f"failed before: {known.error if known and died else 'see its run.json'}"
        return found

    def todo(self) -> list[PlannedRun]:
        skipped = {} if self.retry_failed else self.failed()
        return [run for run in self.runs if run.state != COMPLETE and run.id not in skipped]


def dry_run(sweep: Sweep, jobs: int) -> str:
    """What a call would do: how many runs, hours and disk."""
    todo, failed = sweep.todo(), sweep.failed()
    states = Counter(run.state for run in sweep.runs)
    lines = [
        f"sweep       {sweep.name} ({sweep.folder})",
        f"runs        {len(sweep.runs)}: {states[COMPLETE]} finished already, {len(todo)} to do",
    ]
    if failed:
        verb = "will be repeated" if sweep.retry_failed else "are left alone (--retry-failed repeats them)"
        lines.append(f"            {len(failed)} have failed before and {verb}")
    shared = saved_bases(sweep.runs, todo)
    if shared:
        lines.append(f"            {shared} can begin with a base experience of another one (--share-base)")
    costs = measured_costs(sweep.results)
    lines.append(describe(todo, costs, jobs, _free_bytes(sweep.results)))
    return "\n".join(lines)


def saved_bases(runs: Sequence[PlannedRun], todo: Sequence[PlannedRun]) -> int:
    """How many of ``todo`` need not train their base experience when bases are shared."""
    groups = Counter(run.base for run in todo if run.base)
    done = {run.base for run in runs if run.state == COMPLETE}
    return sum(count - (base not in done) for base, count in groups.items())


def _free_bytes(folder: Path) -> int:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def carry_out(
    sweep: Sweep, engine: Engine, engine_name: str, screen: Screen, share_base: bool
) -> dict[str, str]:
    """Do what is to be done. Returns run id -> reason of every run of the grid that is failed now.

    KeyboardInterrupt propagates once every run has stopped: the same call resumes the sweep.
    """
    record = Record(sweep.folder)
    engine.check(sweep.todo())
    with claimed(sweep.folder):
        for line in record.begin(sweep.name, sweep.grid, sweep.runs, engine_name):
            screen.say(line)
        before = {} if sweep.retry_failed else sweep.failed()
        todo = sweep.todo()
        finished = sum(run.state == COMPLETE for run in sweep.runs)
        screen.say(
            f"sweep {sweep.name}: {len(sweep.runs)} runs, {finished} finished already, {len(todo)} to do"
        )
        if before:
            screen.say(f"{len(before)} failed before and are left alone (--retry-failed repeats them)")
        costs = measured_costs(sweep.results) if todo else Costs()
        board = Board(todo, costs, record, screen, engine.jobs)
        try:
            if todo:
                engine.prepare(todo, Progress(screen.verbosity))
                engine.run(Order(todo, sweep.runs, share_base), board)
        finally:
            board.close()
    return {**before, **board.failures}


def write_slurm(sweep: Sweep, screen: Screen) -> list[str]:
    """Write the job array of what is to be done into the sweep's folder; returns how to submit it."""
    record = Record(sweep.folder)
    with claimed(sweep.folder):
        for line in record.begin(sweep.name, sweep.grid, sweep.runs, "slurm"):
            screen.say(line)
        todo = sweep.todo()
        if not todo:
            return []
        script, submit = write_array(sweep.folder, sweep.name, todo, measured_costs(sweep.results))
        screen.say(f"{script}: {len(todo)} runs; submit with:")
        return submit


def failure_report(sweep: Sweep, failures: Mapping[str, str]) -> str:
    """Every failed run with its reason and the command that repeats it."""
    lines = [f"{len(failures)} of {len(sweep.runs)} runs failed:"]
    for run in sweep.runs:
        if run.id in failures:
            lines += [f"  {run.id}: {failures[run.id]}", f"    {command(run.request)}"]
    return "\n".join(lines)


@dataclass(frozen=True)
class Places:
    """Where runs go: ``jobs`` at once on this machine, each with ``threads``; ``gpus`` are dealt out in turn.

    ``asked`` is what the command line wants a run to ask of a cluster, ``usual`` what one asks that says
    nothing.
    """

    jobs: int
    threads: int
    gpus: Sequence[str]
    asked: Resources
    usual: Resources

    @classmethod
    def of(
        cls, grid: Grid, engine: str, jobs: int | None, cpus: float | None, run_gpus: float | None
    ) -> Places:
        """What the options and this machine say. On a cluster a run has one thread unless told otherwise."""
        gpus = visible_gpus(grid.device) if engine == "local" else []
        jobs = jobs or len(gpus) or max(1, cores() // (grid.threads or 1))
        usual = cores() // jobs if engine == "local" else int(cpus or 1)
        threads = grid.threads or max(1, usual)
        usual_need = Resources(cpus=threads, gpus=float(grid.device.startswith("cuda")))
        return cls(jobs, threads, gpus, Resources(cpus or None, run_gpus), usual_need)

    def assigned(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """The runs with what they ask of a cluster: the command line's, their card's, or what is usual."""
        return [replace(run, resources=self._need(run.resources)) for run in runs]

    def _need(self, card: Resources) -> Resources:
        def first(name: str) -> float:
            return next(v for r in (self.asked, card, self.usual) if (v := getattr(r, name)) is not None)

        return Resources(first("cpus"), first("gpus"), card.memory_mb)


def make_engine(name: str, places: Places, address: str | None, shared: bool) -> Engine:
    """The local or the Ray engine. Raises InputError when Ray is not installed or does not answer."""
    if name == "local":
        return LocalEngine(places.jobs, places.threads, places.gpus)
    from iufbench.sweeps.ray_engine import RayEngine, default_address

    return RayEngine(address or default_address(), shared)


def visible_gpus(device: str) -> list[str]:
    """The GPUs that runs may be dealt out to, as CUDA_VISIBLE_DEVICES counts them."""
    if device not in ("auto", "cuda"):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    import torch

    count = torch.cuda.device_count()
    if not count:
        return []
    return given.split(",")[:count] if given else [str(k) for k in range(count)]


def sweep_name(given: str | None, file: Path | None) -> str:
    """``--name``, else the file's stem, else ``sweep``."""
    return given or (file.stem if file else "sweep")
