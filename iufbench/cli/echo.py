"""What commands print, with nothing in it that a terminal would obey."""

from __future__ import annotations

import click

from iufbench.support.errors import printable


def echo(text: object, err: bool = False, nl: bool = True) -> None:
    """Print text with its control characters spelled out, except for line ends.

    Names of files, and whatever a run directory of somebody else holds, may contain sequences that clear a
    screen or rename a window. JSON comes out unchanged: it is ASCII.
    """
    click.echo(printable(text), err=err, nl=nl)


def say_code(text: str) -> None:
    """Say, before it happens, that a learner from outside the installed packages is imported."""
    echo(f"note: {text}", err=True)
