"""Options shared by several commands."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class HomePath(click.Path):
    """A path in which ``~`` stands for the home folder: shells do not expand it in ``--data-root=~/x``.

    A name that no file can have (too long, say) is a usage error.
    """

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        path = os.path.expanduser(value)
        try:
            os.stat(path)
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
                self.fail(
                    f"{os.fspath(path)[:60]!r}... cannot be the name of a file: {error.args[-1]}",
                    param,
                    context,
                )
        return super().convert(path, param, context)


FOLDER = HomePath(path_type=Path, file_okay=False)
PROCESSES = click.IntRange(1, 1024)
SEED = click.IntRange(0, 2**63 - 1)
FILE = HomePath(path_type=Path, dir_okay=False)


def results_option(function: F) -> F:
    return click.option(
        "--results",
        type=FOLDER,
        default=Path("results"),
        show_default=True,
        help="Folder with runs/, tables/ and figures/.",
    )(function)


def reading_options(function: F) -> F:
    """How a data set is read, for commands that read one."""
    for option in (
        click.option(
            "--accept-masks", is_flag=True, help="Accept the masks as correct: no warnings about them."
        ),
        click.option(
            "--max-pixels", type=click.IntRange(1), help="Read images of up to N pixels [default: 100000000]."
        ),
        click.option(
            "--good-name",
            "good_names",
            multiple=True,
            metavar="NAME",
            help="Folders with this name hold normal images, like good and ok; repeatable.",
        ),
        click.option(
            "--card",
            type=FILE,
            help="Your own data set card, if not in ./benchmarks/datasets or $IUFBENCH_CARDS.",
        ),
    ):
        function = option(function)
    return function


def list_options(function: F) -> F:
    """Lists of the images of a data set."""
    for option in (
        click.option("--manifest", type=FILE, help="List of all images: meta.json (ADer) or CSV (InCLAD)."),
        click.option("--test-list", type=FILE, help="IUF/UniAD JSON-lines list of test images."),
        click.option("--train-list", type=FILE, help="IUF/UniAD JSON-lines list of training images."),
    ):
        function = option(function)
    return function


def data_root_option(function: F) -> F:
    """For commands on a finished run."""
    return click.option(
        "--data-root", type=FOLDER, help="Current location of the run's data, if they were moved."
    )(function)


def trust_option(function: F) -> F:
    """For commands that need the strategy of a finished run."""
    return click.option(
        "--trust-code", is_flag=True, help="Import the run's learner even if it is not an installed one."
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(function)


def strict_option(function: F) -> F:
    return click.option(
        "--strict", is_flag=True, help="Exit with 1 if runs are corrupted, inconsistent or not comparable."
    )(function)
