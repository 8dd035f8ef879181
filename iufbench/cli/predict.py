"""``iufbench predict`` and ``submission``: scores and anomaly maps of new images."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, HomePath, trust_option
from iufbench.support.errors import InputError


@click.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.argument("images", metavar="IMAGES...", type=HomePath(path_type=Path), nargs=-1, required=True)
@click.option(
    "--object",
    default="auto",
    show_default=True,
    help="The object in the images; auto: unknown, selected by the strategy if it has a choice.",
)
@click.option("--out", type=FOLDER, help="New folder for tables, anomaly maps (float16) and overlays (PNG).")
@click.option(
    "--format",
    "style",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="Output format, a line per image.",
)
@click.option(
    "--threshold",
    type=click.Choice(["frozen", "own"]),
    help="Threshold of the run: frozen (right after an object was learnt) or own (after the last experience) "
    "[default: frozen if the run has thresholds].",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@trust_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def predict(
    path: Path,
    images: tuple[Path, ...],
    object: str,
    out: Path | None,
    style: str,
    threshold: str | None,
    device: str,
    trust_code: bool,
    quiet: bool,
) -> None:
    """Score new images with the last checkpoint of a finished run.

    IMAGES are files, folders, quoted patterns, or - for a list on standard input, one file a line. The run's
    data are not needed. The scores are those that `iufbench evaluate` gives the same images.

    \b
    iufbench predict results/runs/parts/parts_1_1/patchcore/1a2b3c4d/seed0 new.png
    iufbench predict results/runs/parts/parts_1_1/patchcore/1a2b3c4d/seed0 today/ --out scored
    find today -name '*.png' | iufbench predict RUN - --format csv > scores.csv
    """
    from iufbench.data.given import listed_images
    from iufbench.reporting.predictions import COLUMNS, as_csv, as_json
    from iufbench.reporting.store import load_run
    from iufbench.support.progress import Progress

    run = load_run(path)
    given: list[Path] = []
    for image in images:
        if str(image) == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed: name the images, or pipe a list into -")
            sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names of any bytes
            given += listed_images(sys.stdin)
        else:
            given.append(image)
    from iufbench.engine.predict import predict as scored

    for number, prediction in enumerate(
        scored(run, given, object, out, device, Progress(-1 if quiet else 0), trust_code, threshold)
    ):
        if style == "csv" and number == 0:
            echo(as_csv(COLUMNS))
        row = prediction.row()
        echo(as_json(row) if style == "jsonl" else as_csv(tuple(row.values())))


@click.command()
@click.argument("path", metavar="RUN", type=FOLDER)
@click.argument("root", metavar="DATA", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="New folder for the anomaly maps.")
@click.option(
    "--threshold",
    type=click.Choice(["frozen", "own"]),
    help="The run's pixel threshold for the thresholded images, as for predict [default: frozen].",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@trust_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def submission(
    path: Path, root: Path, out: Path, threshold: str | None, device: str, trust_code: bool, quiet: bool
) -> None:
    """Write the anomaly maps of MVTec AD 2's private test sets for its benchmark server.

    RUN is a finished run on mvtecad2, DATA the folder of the data set. Nothing is uploaded.

    \b
    iufbench submission RUN ~/data/mvtec_ad_2 --out submission
    """
    from iufbench.engine.private_sets import write_submission
    from iufbench.support.progress import Progress

    counts = write_submission(path, root, out, device, threshold, Progress(-1 if quiet else 0), trust_code)
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    echo(f"{out}: {sum(counts.values())} anomaly maps ({listed})")
