"""Output of commands, free of terminal control sequences."""

from __future__ import annotations

import click

from iufbench.support.errors import printable


def echo(text: object, err: bool = False, nl: bool = True) -> None:
    """Print text with escaped control characters, except for line ends.

    File names and untrusted run directories may contain sequences that clear the screen or rename the window.
    JSON is unchanged: it is ASCII.
    """
    click.echo(printable(text), err=err, nl=nl)


def say_code(text: str) -> None:
    """Report that a learner outside the installed packages is about to be imported."""
    echo(f"note: {text}", err=True)
