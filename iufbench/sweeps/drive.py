"""Execution of a sweep: skips finished runs, passes the others to an engine, and reports failures."""

from __future__ import annotations

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
from iufbench.sweeps.gpus import USUAL_MIB, free_mib, measured_mib, runs_per_gpu, visible_gpus
from iufbench.sweeps.grid import Grid
from iufbench.sweeps.local import LocalEngine
from iufbench.sweeps.order import Order
from iufbench.sweeps.record import Record
from iufbench.sweeps.runs import COMPLETE, FAILED, PlannedRun
from iufbench.sweeps.screen import Screen
from iufbench.sweeps.slurm import write_array


class Engine(Protocol):
    """Executes runs: takes them from ``order`` and reports their outcomes to ``board``.

    ``check`` raises InputError before anything is started if runs could not be executed; ``prepare`` computes
    inputs that several runs share.
    """

    jobs: int

    def check(self, runs: Sequence[PlannedRun]) -> None: ...

    def prepare(self, runs: Sequence[PlannedRun], progress: Progress) -> None: ...

    def run(self, order: Order, board: Board) -> None: ...


@dataclass
class Sweep:
    """All runs of a grid, and the subset (``todo``) that a call would execute."""

    name: str
    grid: Mapping[str, Any]
    runs: Sequence[PlannedRun]
    results: Path
    retry_failed: bool = False

    @property
    def folder(self) -> Path:
        return self.results / "sweeps" / self.name

    def failed(self) -> dict[str, str]:
        """Run id -> reason for runs that failed earlier, from run directories and events."""
        events = Record(self.folder).events()
        found = {}
        for run in self.runs:
            known = events.get(run.id)
            died = known is not None and known.state == FAILED
            if run.state == FAILED or (died and run.state != COMPLETE):
                found[run.id] = f"failed earlier: {known.error if known and died else 'see its run.json'}"
        return found

    def todo(self) -> list[PlannedRun]:
        skipped = {} if self.retry_failed else self.failed()
        return [run for run in self.runs if run.state != COMPLETE and run.id not in skipped]


def dry_run(sweep: Sweep, jobs: int) -> str:
    """Describe what a call would execute: number of runs, hours, disk space."""
    todo, failed = sweep.todo(), sweep.failed()
    states = Counter(run.state for run in sweep.runs)
    lines = [
        f"sweep       {sweep.name} ({sweep.folder})",
        f"runs        {len(sweep.runs)}: {states[COMPLETE]} finished, {len(todo)} to do",
    ]
    if failed:
        verb = "will be repeated" if sweep.retry_failed else "are skipped (--retry-failed repeats them)"
        lines.append(f"            {len(failed)} failed earlier and {verb}")
    shared = saved_bases(sweep.runs, todo)
    if shared:
        lines.append(f"            {shared} can reuse the base experience of another run (--share-base)")
    costs = measured_costs(sweep.results)
    lines.append(describe(todo, costs, jobs, _free_bytes(sweep.results)))
    return "\n".join(lines)


def saved_bases(runs: Sequence[PlannedRun], todo: Sequence[PlannedRun]) -> int:
    """How many of ``todo`` need not train their base experience if bases are shared."""
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
    """Execute the runs of a sweep that are not finished.

    Args:
        sweep: The sweep.
        engine: Executes the runs.
        engine_name: Recorded in the folder of the sweep.
        screen: Shows the progress.
        share_base: Train a base experience that several runs have in common only once.

    Returns:
        Run id -> reason for every failed run of the grid, those that failed earlier included.

    Raises:
        InputError: The engine cannot execute the runs.
        KeyboardInterrupt: All runs have stopped; the same call resumes the sweep.
    """
    record = Record(sweep.folder)
    engine.check(sweep.todo())
    with claimed(sweep.folder):
        for line in record.begin(sweep.name, sweep.grid, sweep.runs, engine_name):
            screen.say(line)
        before = {} if sweep.retry_failed else sweep.failed()
        todo = sweep.todo()
        finished = sum(run.state == COMPLETE for run in sweep.runs)
        screen.say(f"sweep {sweep.name}: {len(sweep.runs)} runs, {finished} finished, {len(todo)} to do")
        if before:
            screen.say(f"{len(before)} failed earlier and are skipped (--retry-failed repeats them)")
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
    """Write a SLURM job array of the unfinished runs into the sweep's folder. Returns the submit commands."""
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
    """Where runs are executed.

    Attributes:
        jobs: Parallel runs on this machine.
        threads: Threads per run.
        gpus: GPUs, assigned to the parallel runs in turn.
        asked: Resources that the command line requests per run.
        usual: Resources of a run if neither the command line nor its card requests any.
    """

    jobs: int
    threads: int
    gpus: Sequence[str]
    asked: Resources
    usual: Resources

    @classmethod
    def of(
        cls,
        grid: Grid,
        engine: str,
        jobs: int | None,
        cpus: float | None,
        run_gpus: float | None,
        results: Path = Path("results"),
    ) -> Places:
        """Choose from the options and this machine's hardware; on a cluster the default is one thread.

        ``results``: its finished runs determine the GPU memory of a run.
        """
        gpus = visible_gpus(grid.device) if engine == "local" else []
        if gpus and (jobs is None or run_gpus is not None):
            free = [] if run_gpus is not None else free_mib(len(gpus))
            needed = USUAL_MIB if run_gpus is not None else measured_mib(results)
            most = len(gpus) * runs_per_gpu(gpus, run_gpus, cores(), needed, free)
            jobs = min(jobs or most, most)
        jobs = jobs or max(1, cores() // (grid.threads or 1))
        if grid.device.startswith("cuda:"):
            gpus = []  # processes see all GPUs and choose this one by its number
        usual = cores() // jobs if engine == "local" else int(cpus or 1)
        threads = grid.threads or max(1, usual)
        usual_need = Resources(cpus=threads, gpus=float(grid.device.startswith("cuda")))
        return cls(jobs, threads, gpus, Resources(cpus or None, run_gpus), usual_need)

    def assigned(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """The runs with the resources they request: the command line's, else the card's, else the default."""
        return [replace(run, resources=self._need(run.resources)) for run in runs]

    def _need(self, card: Resources) -> Resources:
        def first(name: str) -> float:
            return next(v for r in (self.asked, card, self.usual) if (v := getattr(r, name)) is not None)

        return Resources(first("cpus"), first("gpus"), card.memory_mb)


def make_engine(name: str, places: Places, address: str | None, shared: bool) -> Engine:
    """Create the local or the Ray engine. Raises InputError if Ray is not installed or not reachable."""
    if name == "local":
        return LocalEngine(places.jobs, places.threads, places.gpus)
    from iufbench.sweeps.ray_engine import RayEngine, default_address

    return RayEngine(address or default_address(), shared)


def sweep_name(given: str | None, file: Path | None) -> str:
    """``--name``, else the file's stem, else ``sweep``."""
    return given or (file.stem if file else "sweep")
