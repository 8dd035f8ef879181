"""``iufbench extend``: adds an object to a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, trust_option


@click.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.option("--object", "objects", required=True, help="The new object; a,b,c if increments have three.")
@click.option(
    "--data-root", type=FOLDER, help="Folder with the new object and the old ones [default: the run's data]."
)
@click.option("--results", type=FOLDER, help="Results folder of the new run [default: that of the run].")
@click.option("--device", help="auto, cpu, cuda or cuda:N [default: the run's own].")
@trust_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def extend(
    path: Path,
    objects: str,
    data_root: Path | None,
    results: Path | None,
    device: str | None,
    trust_code: bool,
    quiet: bool,
) -> None:
    """Add an object to a finished run: train one more experience from its last checkpoint.

    Writes a new run directory that names its parent, with the numbers of the run that had the object in its
    protocol from the start. Training images of old objects are not needed; objects with available test images
    are evaluated. If interrupted, the same command resumes.

    \b
    iufbench extend results/runs/parts/parts_1_1/patchcore/1a2b3c4d/seed0 --object washer --data-root parts
    """
    from iufbench.engine.describe import describe_results
    from iufbench.engine.extend import extend as add
    from iufbench.engine.plan import split_names
    from iufbench.reporting.figures.build import write_run_figures
    from iufbench.support.progress import Progress

    progress = Progress(-1 if quiet else 0)
    run = add(path, split_names(objects) or (), progress, data_root, results, device, trust_code)
    write_run_figures(run.path)
    echo(describe_results(run))
    costs = run.record.costs
    if costs.train_seconds and costs.trained_images and costs.bytes_kept:
        echo(
            f"cost of adding {objects}: {costs.train_seconds[-1]:.1f} s of training, "
            f"{costs.trained_images[-1]} images shown, {costs.bytes_kept[-1]} bytes stored"
        )
    progress.say(f"run directory: {run.path}")
