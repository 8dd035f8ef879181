"""The Python API for sweeps, also used by ``iufbench sweep run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import PathOrText
from iufbench.sweeps import drive
from iufbench.sweeps.grid import expand, find_grid, read_grid
from iufbench.sweeps.runs import plan_runs
from iufbench.sweeps.screen import Screen

ENGINES = ("local", "ray", "slurm")


def sweep(
    grid: PathOrText | None = None,
    *,
    protocols: str | Sequence[str] = (),
    strategies: str | Sequence[str | Mapping[str, Sequence[str]]] = (),
    seeds: int | str | Sequence[int] | None = None,
    orders: str | Sequence[Any] | None = None,
    engine: str = "local",
    jobs: int | None = None,
    address: str | None = None,
    cpus_per_run: float | None = None,
    gpus_per_run: float | None = None,
    shared_results: bool = False,
    share_base: bool = False,
    retry_failed: bool = False,
    name: str | None = None,
    results: PathOrText = "results",
    quiet: bool = False,
    verbose: bool = False,
    **options: Any,
) -> list[Run]:
    """Execute the unfinished runs of a grid, as ``iufbench sweep run`` does with the same options.

    Args:
        grid: YAML file or name of a predefined grid; the other arguments override its values.
        protocols: Ids or aliases, or ``all``.
        strategies: Names or card files, or ``all``; ``{name: ["key=value"]}`` adds settings to one strategy.
        seeds: A number, ``"0-4"``, or a list.
        orders: ``"alphabetical"``, ``"seed:1-3"``, or a list.
        engine: ``local``, or ``ray`` for a Ray cluster.
        jobs: Number of parallel runs; None: as many per GPU as fit (at most 4), else one per core.
        address: ``host:port`` of the head of the Ray cluster.
        cpus_per_run: CPUs that a run requests from a Ray cluster; None: as on the card, else its threads.
        gpus_per_run: GPUs that a run requests; None: as on the card, else 1 with ``device="cuda"``. With the
            local engine, the part of a GPU that a run uses: 0.25 for four runs on each.
        shared_results: All nodes of a Ray cluster see ``results`` under the same path.
        share_base: Train a base experience that several runs have in common only once.
        retry_failed: Repeat runs that failed in an earlier call.
        name: Name of the sweep; None: the name of the grid file.
        results: Results folder.
        quiet: Show no progress.
        verbose: Also print a line when a run starts.
        **options: Options of all runs, as in :func:`iufbench.run`: ``synthetic``, ``preset``, ...

    Returns:
        The complete runs of the grid, in its order.

    Raises:
        InputError: The grid is invalid; the message lists all errors. No run was started.
        RunError: Some runs failed; the message names them. All others are complete.
    """
    given = {"protocols": protocols, "strategies": strategies, "seeds": seeds, "orders": orders, **options}
    plan, places = plan_sweep(
        grid,
        given,
        engine=engine,
        jobs=jobs,
        cpus_per_run=cpus_per_run,
        gpus_per_run=gpus_per_run,
        retry_failed=retry_failed,
        name=name,
        results=Path(results),
    )
    screen = Screen(-1 if quiet else int(verbose))
    failures = carry_out(plan, places, engine, screen, address, shared_results, share_base)
    if failures:
        raise RunError(*drive.failure_report(plan, failures).split("\n"))
    return [load_run(run.path) for run in plan.runs]


def carry_out(
    plan: drive.Sweep,
    places: drive.Places,
    engine: str,
    screen: Screen,
    address: str | None = None,
    shared_results: bool = False,
    share_base: bool = False,
) -> dict[str, str]:
    """Execute the unfinished runs of a planned sweep.

    Args:
        plan: From ``plan_sweep``.
        places: From ``plan_sweep``.
        engine: ``local`` or ``ray``.
        screen: Shows the progress.
        address: As for ``sweep``.
        shared_results: As for ``sweep``.
        share_base: As for ``sweep``.

    Returns:
        Run id -> reason for every failed run.

    Raises:
        InputError: The engine cannot execute the runs, or is ``slurm``.
    """
    if engine == "slurm":
        raise InputError("engine slurm only writes a job array: use iufbench sweep run --engine slurm")
    made = drive.make_engine(engine, places, address, shared_results)
    return drive.carry_out(plan, made, engine, screen, share_base)


def plan_sweep(
    grid: PathOrText | None,
    options: Mapping[str, Any],
    *,
    engine: str,
    jobs: int | None,
    cpus_per_run: float | None,
    gpus_per_run: float | None,
    retry_failed: bool,
    name: str | None,
    results: Path,
) -> tuple[drive.Sweep, drive.Places]:
    """Expand and check a grid; the arguments are those of ``sweep``.

    Returns:
        The sweep with all runs of the grid, and where they would be executed.

    Raises:
        InputError: The grid is invalid; the message lists all errors.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    file = None if grid is None else find_grid(str(grid))
    read = read_grid(file, {key: _plain(v) for key, v in options.items() if v is not None and v != ()})
    requests = expand(read, results)
    places = drive.Places.of(read, engine, jobs, cpus_per_run, gpus_per_run, results)
    runs = places.assigned(plan_runs(requests, places.threads))
    return drive.Sweep(drive.sweep_name(name, file), read.as_dict(), runs, results, retry_failed), places


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [f"{key}={item}" for key, item in value.items()]
    if isinstance(value, (tuple, range)):
        return list(value)
    return str(value) if isinstance(value, PathLike) else value
