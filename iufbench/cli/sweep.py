"""``iufbench sweep``: many runs at once, and their status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iufbench.cards.request import MAX_THREADS
from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, PROCESSES, json_option, results_option
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import json_text

ENGINES = click.Choice(["local", "ray", "slurm"])


class SweepGroup(click.Group):
    """``iufbench sweep GRID`` means ``iufbench sweep run GRID``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(context, args)


@click.group(cls=SweepGroup)
def sweep() -> None:
    """Execute many runs: a grid of strategies, protocols, seeds and orders.

    \b
    iufbench sweep paper --dry-run
    iufbench sweep my_grid.yaml --jobs 2
    iufbench sweep --protocol visa_8_4 --strategy iuf --strategy ewc --seeds 0-4 --synthetic
    iufbench sweep status results/sweeps/my_grid

    `iufbench sweep GRID` is short for `iufbench sweep run GRID`; its options: iufbench sweep run --help
    """


@sweep.command("run")
@click.argument("grid", required=False)
@click.option("--protocol", "protocols", multiple=True, help="Repeatable; all: every protocol with a card.")
@click.option("--strategy", "strategies", multiple=True, help="Repeatable; all: every registered strategy.")
@click.option("--seeds", help="0-4 or 0,3,7 [default: 0].")
@click.option("--orders", help="alphabetical, seed:1-3, easy-hard, comma-separated [default: alphabetical].")
@click.option("--data-root", type=FOLDER, help="Folder of the data set [default: $IUFBENCH_DATA/<dataset>].")
@click.option("--synthetic", is_flag=True, default=None, help="Use the synthetic stand-in data sets.")
@click.option("--data-seed", type=click.IntRange(0), help="Seed of --synthetic.")
@click.option("--preset", help="paper or quick.")
@click.option("--backbone", help="Any timm model instead of the card's.")
@click.option("--weights", help="File with backbone weights, or package, pretrained, random.")
@click.option("--device", help="auto, cpu, cuda or cuda:N [default: auto].")
@click.option(
    "--threads", type=click.IntRange(1, MAX_THREADS), help="CPU threads of each run [default: cores / jobs]."
)
@click.option("--precision", help="auto, fp32, tf32 or bf16; all but fp32 are separate recipes.")
@click.option("--step", help="auto, eager or graph: how an iteration is executed.")
@click.option("--compile", is_flag=True, default=None, help="Train with torch.compile.")
@click.option("--cache/--no-cache", default=None, help="Keep decoded images and features [default: cache].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For all runs; repeatable.")
@click.option("--eval-unseen", is_flag=True, default=None, help="Also evaluate objects not yet learnt.")
@click.option("--threshold", metavar="RULE", help="Calibrate thresholds, as with iufbench run.")
@click.option("--calibration", type=float, metavar="SHARE", help="With --threshold [default: 0.1].")
@click.option("--name", help="Name of the sweep, a folder in RESULTS/sweeps [default: the grid's file name].")
@click.option("--dry-run", is_flag=True, help="Print the number of runs, hours and bytes, and stop.")
@click.option(
    "--probe",
    is_flag=True,
    help="With --dry-run, time a few iterations of each recipe on this machine and estimate the hours.",
)
@click.option("--list", "list_runs", is_flag=True, help="Print the command of every run, and stop.")
@click.option("--retry-failed", is_flag=True, help="Repeat runs that failed before.")
@click.option(
    "--share-base", is_flag=True, help="Train a base experience only once if several runs start identically."
)
@click.option(
    "--engine",
    type=ENGINES,
    default="local",
    show_default=True,
    help="This machine, a Ray cluster (iufbench[ray]), or a SLURM script to submit.",
)
@click.option(
    "-j", "--jobs", type=PROCESSES, help="Runs at once [default: up to 4 per GPU, else one per core]."
)
@click.option("--address", help="ray: host:port of the head [default: $RAY_ADDRESS, or this machine's].")
@click.option(
    "--cpus-per-run",
    type=click.FloatRange(0),
    help="ray, slurm [default: the card's, else the run's threads].",
)
@click.option(
    "--gpus-per-run",
    type=click.FloatRange(0),
    help="0.25: four runs share a GPU [default: local, by memory and cores; ray, slurm, the card's, else 1].",
)
@click.option("--shared-results", is_flag=True, help="ray: all nodes see RESULTS under the same path.")
@results_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line also when a run starts.")
def run_sweep(
    grid: str | None,
    name: str | None,
    dry_run: bool,
    probe: bool,
    list_runs: bool,
    retry_failed: bool,
    share_base: bool,
    engine: str,
    jobs: int | None,
    address: str | None,
    cpus_per_run: float | None,
    gpus_per_run: float | None,
    shared_results: bool,
    results: Path,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Execute the runs of a grid that are not finished yet.

    GRID is a YAML file or the name of a predefined grid (paper, ablation, synthetic-smoke). Options
    override its values.

    \b
    iufbench sweep paper --dry-run
    iufbench sweep synthetic-smoke --jobs 2
    iufbench sweep --protocol visa_8_4 --strategy iuf --strategy ewc --seeds 0-4 \\
        --orders alphabetical,seed:1-3 --synthetic

    Finished runs are skipped, interrupted ones are resumed. Exit code 0 if every run of the grid is complete,
    1 if a run failed, 2 invalid input, 130 interrupted (the same command resumes).
    """
    from iufbench.cards.request import command
    from iufbench.sweeps import api, drive
    from iufbench.sweeps.screen import Screen
    from iufbench.sweeps.summary import summary_table

    if probe and not dry_run:
        raise InputError("--probe belongs to --dry-run")
    plan, places = api.plan_sweep(
        grid,
        options,
        engine=engine,
        jobs=jobs,
        cpus_per_run=cpus_per_run,
        gpus_per_run=gpus_per_run,
        retry_failed=retry_failed,
        name=name,
        results=results,
    )
    screen = Screen(-1 if quiet else int(verbose))
    if list_runs:
        echo("\n".join(command(run.request) for run in plan.runs))
    elif dry_run:
        echo(drive.dry_run(plan, places.jobs))
        if probe:
            from iufbench.support.progress import Progress
            from iufbench.sweeps.probing import probe_report

            echo("\n" + probe_report(plan.todo(), places.jobs, Progress(screen.verbosity)))
    elif engine == "slurm":
        echo("\n".join(drive.write_slurm(plan, screen)))
    else:
        failures = api.carry_out(plan, places, engine, screen, address, shared_results, share_base)
        echo(summary_table([run.path for run in plan.runs]))
        if failures:
            raise RunError(*drive.failure_report(plan, failures).split("\n"))


@sweep.command()
@click.argument("folder", type=FOLDER)
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show the status of the sweep in FOLDER, from any terminal.

    \b
    iufbench sweep status results/sweeps/paper
    """
    from iufbench.sweeps.status import describe_status, rows_of

    echo(json_text(rows_of(folder)[1]) if as_json else describe_status(folder))
