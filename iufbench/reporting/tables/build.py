"""All tables of a results folder: pure functions of run directories and published numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from iufbench.reporting.collect import collect
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import Published
from iufbench.reporting.literature import published as published_numbers
from iufbench.reporting.store import Run
from iufbench.reporting.tables.aggregates import aggregate_tables
from iufbench.reporting.tables.details import detail_tables
from iufbench.reporting.tables.plane import plane_tables
from iufbench.reporting.tables.render import FORMATS, render
from iufbench.reporting.tables.results import ablation_tables, one_by_one_tables, result_tables
from iufbench.reporting.tables.routing import routing_tables
from iufbench.reporting.tables.spread import spread_tables
from iufbench.reporting.tables.table import Table
from iufbench.reporting.tables.thresholds import threshold_tables
from iufbench.support.errors import one_line
from iufbench.support.files import write_text

__all__ = ["build_tables", "render", "write_tables"]


def warn_on_stderr(text: str) -> None:
    """Print a warning about a run to stderr; tables of the other runs are still built."""
    print(f"warning: {one_line(text)}", file=sys.stderr)


def build_tables(
    runs: Sequence[Run], published: Published, notes: Mapping[str, Sequence[str]] | None = None
) -> list[Table]:
    """All tables of complete runs: results beside published values, ablations, details, costs,
    thresholds, spread.

    ``notes`` (run id -> texts) become footnotes of the tables that show the run.
    """
    groups = group_runs(run for run in runs if run.complete)
    notes = notes or {}
    return [
        *result_tables(groups, published, notes),
        *ablation_tables(groups, published, notes),
        *one_by_one_tables(groups, published, notes),
        *plane_tables(groups, published, notes),
        *detail_tables(groups, published, notes),
        *threshold_tables(groups, published, notes),
        *routing_tables(groups, notes),
        *spread_tables(groups, published, notes),
        *aggregate_tables(groups, published, notes),
    ]


def write_tables(
    results_dir: Path | str,
    out_dir: Path | str,
    formats: Sequence[str] = ("md",),
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
) -> list[Path]:
    """Write the tables of all complete runs.

    Args:
        results_dir: Results folder.
        out_dir: Output folder.
        formats: Any of ``md``, ``tex``, ``csv``, ``html``.
        strict: Raise RunError if a run is corrupted or inconsistent.
        warn: Called with one line per corrupted, inconsistent or incomplete run.

    Returns:
        The files written.

    Raises:
        InputError: There is no complete run.
        RunError: With ``strict``, a run is corrupted or inconsistent.
    """
    return save_tables(read_tables(results_dir, strict, warn), out_dir, formats)


def read_tables(
    results_dir: Path | str, strict: bool = False, warn: Callable[[str], None] = warn_on_stderr
) -> list[Table]:
    """Build the tables of all complete runs; warnings and errors as for ``write_tables``."""
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    return build_tables(collection.runs, published_numbers(), collection.footnotes)


def save_tables(tables: Sequence[Table], out_dir: Path | str, formats: Sequence[str]) -> list[Path]:
    """Write tables into a folder, one file per table and format."""
    formats = [fmt for fmt in FORMATS if fmt in formats] or list(formats)
    return [
        write_text(Path(out_dir) / f"{table.name}.{fmt}", render(table, fmt))
        for fmt in formats
        for table in tables
    ]
