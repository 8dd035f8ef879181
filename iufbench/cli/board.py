"""``iufbench board``: rankings of many runs as pages, and the check of a submission."""

from __future__ import annotations

from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, HomePath, strict_option

PLACE = HomePath(path_type=Path)


@click.group()
def board() -> None:
    """Publish the runs of several people as a static site, and check submissions to it."""


@board.command()
@click.argument("results", metavar="DIR", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder of the site [default: DIR/board].")
@strict_option
def build(results: Path, out: Path | None, strict: bool) -> None:
    """Rank all finished and external runs below DIR/runs on pages that need no server.

    Paths of this machine are removed from what is published. An older board in the same place is replaced.

    \b
    iufbench board build results
    iufbench board build results --out site
    """
    from iufbench.reporting import api

    echo(str(api.board_build(results, out, strict)))


@board.command()
@click.argument("path", metavar="FILE_OR_DIR", type=PLACE)
def check(path: Path) -> None:
    """Check a submission: a run directory, or a .zip or .tar with one.

    Recomputes image metrics from scores.csv.gz and summaries from metrics.csv, compares the hashes in
    run.json, and compares images, labels and protocol with the cards. Reports numbers that differ or cannot
    be checked: pixel metrics need the anomaly maps. Exit code 1 if anything differs, 2 if the input is not
    a run.

    \b
    iufbench board check results/runs/visa/visa_8_1x4/iuf/1a2b3c4d/seed0
    iufbench board check submission.zip
    """
    from iufbench.cli.trust import conclude
    from iufbench.trust.submission import board_check

    found = board_check(path)
    echo(found.run)
    for line in found.checked:
        echo(f"checked: {line}")
    for line in found.unchecked:
        echo(f"not checked: {line}")
    conclude(found.differences)
