"""``iufbench board``: rankings of many runs as pages, and the check of a submission."""

from __future__ import annotations

from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER, strict_option


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
