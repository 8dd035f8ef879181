"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)
SEED = click.IntRange(0, 2**63 - 1)
FILE = click.Path(path_type=Path, dir_okay=False)


def results_option(function: F) -> F:
    return click.option(
        "--results",
        type=FOLDER,
        default=Path("results"),
        show_default=True,
        help="Folder with runs/, tables/ and figures/.",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(function)


def strict_option(function: F) -> F:
    return click.option("--strict", is_flag=True, help="Exit with 1 when a run is damaged or inconsistent.")(
        function
    )
