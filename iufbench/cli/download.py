"""``iufbench data download``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from iufbench.cli.echo import echo
from iufbench.cli.options import FOLDER
from iufbench.support.errors import InputError


@click.command()
@click.argument("dataset", metavar="DATASET")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--url", help="A mirror of the official archive or, with --sha256, a different archive.")
@click.option("--sha256", help="Expected checksum of the archive at --url [default: the official one].")
@click.option(
    "--accept-licence", is_flag=True, help="Confirm that you have read and accept the data set's licence."
)
@click.option("-q", "--quiet", is_flag=True)
def download(
    dataset: str, folder: Path, url: str | None, sha256: str | None, accept_licence: bool, quiet: bool
) -> None:
    """Download and verify the official archive of a data set and unpack it to DIR, all or nothing.

    For data sets whose card has a checksum (an unknown name lists them). Several URLs are tried in order;
    repeating the command resumes an interrupted download. MVTec AD needs about 11 GB of disk space (archive
    and images), VisA 4 GB.

    \b
    iufbench data download visa ~/data/visa
    iufbench data check ~/data/visa --dataset visa
    """
    from iufbench.data.download.download import archives_of, card_to_download, complete_root, download_dataset
    from iufbench.support.progress import Progress

    card = card_to_download(dataset)
    archives = archives_of(card, url, sha256)
    root = complete_root(card, folder)
    if root is not None:
        echo(f"{card.title} is complete in {root}: nothing to do", err=True)
    else:
        _require_acceptance(f"{card.title} is licensed under {card.licence}, see {card.home}", accept_licence)
        try:
            root = download_dataset(card, folder, archives, Progress(-1 if quiet else 0))
        except KeyboardInterrupt as stop:
            echo(f"\ninterrupted: {stop}", err=True)
            raise SystemExit(130) from stop
        echo(f"{card.title} is unpacked", err=True)
    root = root.absolute()
    echo(f"--data-root {shlex.quote(str(root))}")
    echo(f"next: iufbench data check {shlex.quote(str(root))} --dataset {card.name}")


def _require_acceptance(licence: str, accepted: bool) -> None:
    """Show the licence; InputError unless it was accepted, on the command line or now at a terminal."""
    echo(licence, err=True)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise InputError("the licence must be accepted: read it and add --accept-licence")
    if not click.confirm("Do you accept this licence?", default=False, err=True):
        raise InputError("the licence was not accepted: nothing was downloaded")
