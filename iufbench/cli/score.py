"""``iufbench score``: evaluates scores of any method like a strategy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FILE, FOLDER, SEED, list_options, reading_options, results_option


@click.command()
@click.argument("scores", metavar="SCORES.csv", type=FILE, required=False)
@click.option("--protocol", required=True, help="Id, alias, or <dataset>_<X>_<Y>[x<N>], such as visa_8_1x4.")
@click.option("--name", help="Name of the method in tables, which add: (external).")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Number of the repetition.")
@click.option("--maps", type=FOLDER, help="Anomaly maps: DIR/<experience>/<image>.npy, .tiff or 16-bit .png.")
@click.option("--masks", type=FOLDER, help="Masks, DIR/<image>.png, for a data set without masks.")
@click.option("--link", help="URL of a paper or of code, shown beside the results.")
@click.option("--template", "to_fill", type=FILE, help="Write the CSV file to fill in, and stop.")
@click.option("--save-maps", is_flag=True, help="Save the maps for figures (float16, 98 KiB per image).")
@click.option("--data-root", type=FOLDER, help="Folder of the data set [default: $IUFBENCH_DATA/<dataset>].")
@click.option(
    "--synthetic", is_flag=True, help="The synthetic stand-in data set (results are labelled as such)."
)
@click.option("--data-seed", type=SEED, default=0, show_default=True, help="Seed of --synthetic.")
@list_options
@click.option("--order", help="Objects in this order: a,b,c, or a published order's name.")
@click.option("--order-seed", type=SEED, help="Objects in a reproducibly shuffled order.")
@reading_options
@results_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def score(
    scores: Path | None,
    protocol: str,
    name: str | None,
    to_fill: Path | None,
    results: Path,
    quiet: bool,
    seed: int,
    maps: Path | None,
    masks: Path | None,
    link: str | None,
    save_maps: bool,
    **data: Any,
) -> None:
    """Evaluate scores of any method, from a CSV file: experience, object, image, score.

    The result is a run directory of kind "external" for tables, figures, compare and report.
    Labels come from the data set, never from the file.

    \b
    iufbench score --template mine.csv --protocol visa_8_1x4 --data-root ~/visa
    iufbench score mine.csv --protocol visa_8_1x4 --data-root ~/visa --name "My method"
    iufbench score mine.csv --maps maps --protocol visa_8_1x4 --synthetic --name "My method"
    """
    from iufbench.engine.describe import describe_results
    from iufbench.engine.external import template
    from iufbench.engine.score import score as score_submission
    from iufbench.engine.score import scoring_request
    from iufbench.support.errors import InputError

    if to_fill is not None:
        if scores is not None:
            raise InputError("--template writes a file to fill in: give it without SCORES.csv")
        request = scoring_request(protocol, "template", seed, results, **data)
        echo(str(template(to_fill, request, not quiet)))
        return
    if scores is None or name is None:
        missing = "SCORES.csv" if scores is None else "--name METHOD"
        raise InputError(f"score needs {missing}; --template FILE writes a CSV file to fill in")
    run = score_submission(
        scores,
        protocol,
        name,
        maps=maps,
        masks=masks,
        seed=seed,
        link=link,
        save_maps=save_maps,
        results=results,
        quiet=quiet,
        **data,
    )
    echo(describe_results(run))
    echo(f"run directory: {run.path}", err=True)
