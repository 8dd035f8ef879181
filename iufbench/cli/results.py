"""The commands that read results: tables, figures, report, compare, export. None of them trains."""

from __future__ import annotations

from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FILE, FOLDER, results_option, strict_option

FORMATS = click.Choice(["md", "tex", "csv", "html"])


@click.command()
@results_option
@click.option("--out", type=FOLDER, help="Output folder [default: <results>/tables].")
@click.option("--format", "formats", multiple=True, type=FORMATS, default=("md",), show_default=True)
@strict_option
def tables(results: Path, out: Path | None, formats: tuple[str, ...], strict: bool) -> None:
    """Build tables of all finished runs, next to the published numbers.

    \b
    iufbench tables
    iufbench tables --format md --format tex --out paper/tables
    """
    from iufbench.reporting import api

    for path in api.tables(results, out, formats, strict).paths:
        echo(str(path))


@click.command()
@results_option
@click.option("--out", type=FOLDER, help="Output folder [default: <results>/figures].")
@click.option("--matrices", is_flag=True, help="Also draw the matrix of one seed of every recipe.")
@click.option("--highlight", help="Strategies that curves show in colour, the others in grey: a,b.")
@click.option("--qualitative", is_flag=True, help="Draw only images with anomaly maps, from saved maps.")
@click.option("--objects", help="With --qualitative, only these: a,b,c.")
@click.option("--strategies", help="With --qualitative, only these: a,b,c.")
@strict_option
def figures(
    results: Path,
    out: Path | None,
    matrices: bool,
    highlight: str | None,
    qualitative: bool,
    objects: str | None,
    strategies: str | None,
    strict: bool,
) -> None:
    """Draw the figures of all finished runs: curves, learning and forgetting, costs, anomaly maps.

    Anomaly maps are drawn where they were saved, which requires no training:

    \b
    iufbench evaluate results/runs/visa-synthetic/visa_8_1x4/iuf/1a2b3c4d/seed0 --save-maps
    iufbench figures --qualitative --objects candle,pcb1 --strategies iuf,finetune
    """
    from iufbench.engine.plan import split_names
    from iufbench.reporting import api

    paths = api.figures(
        results,
        out,
        qualitative=qualitative,
        objects=split_names(objects),
        strategies=split_names(strategies),
        matrices=matrices,
        highlight=split_names(highlight),
        strict=strict,
    )
    for path in paths:
        echo(str(path))


@click.command()
@results_option
@click.option("--out", type=FILE, help="Output file [default: <results>/report.html].")
@strict_option
def report(results: Path, out: Path | None, strict: bool) -> None:
    """Write all results to one HTML file that works offline."""
    from iufbench.reporting import api

    echo(str(api.report(results, out, strict)))


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--metric", default="auroc", show_default=True, help="A metric of metrics.csv, such as ap.")
@click.option("--format", "fmt", type=FORMATS, default="md", show_default=True)
@results_option
@strict_option
def compare(first: str, second: str, metric: str, fmt: str, results: Path, strict: bool) -> None:
    """Compare two strategies over the seeds they share.

    Prints per-seed differences, a bootstrap interval, effect size and p-value. A and B are names of
    strategies, run ids with or without the seed, or run directories.

    \b
    iufbench compare iuf finetune
    iufbench compare visa/visa_8_1x4/iuf/1a2b3c4d visa/visa_8_1x4/iuf/5e6f7a8b --metric ap
    """
    from iufbench.reporting import api
    from iufbench.reporting.tables.render import render

    echo(render(api.compare(first, second, metric, results=results, strict=strict), fmt), nl=False)


@click.command()
@results_option
@click.option("--out", type=FOLDER, help="Output folder [default: <results>/export].")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["csv", "parquet"]),
    default=("csv",),
    show_default=True,
    help="Repeatable; parquet needs pyarrow.",
)
@click.option(
    "--for-spreadsheet",
    is_flag=True,
    help="In runs.csv, put an apostrophe before text that a spreadsheet would interpret as a formula.",
)
@strict_option
def export(
    results: Path, out: Path | None, formats: tuple[str, ...], for_spreadsheet: bool, strict: bool
) -> None:
    """Export all finished runs for other tools: one tidy table and pyCLAD-style matrices.

    The columns of the table name run, data, protocol, strategy, recipe, seed, experience, object, level,
    metric and value; the value is exact. Names are written unchanged, including those that begin with =, +, -
    or @: use --for-spreadsheet before opening the runs.csv of someone else's runs in a spreadsheet.
    """
    from iufbench.reporting.export import export as export_runs

    for path in export_runs(
        results, out or results / "export", formats, strict, for_spreadsheet=for_spreadsheet
    ):
        echo(str(path))
