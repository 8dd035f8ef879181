"""Results for Python programs: the functions behind the commands ``tables``, ``figures``, ``report``,
``compare``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from iufbench.reporting import compare as comparing
from iufbench.reporting import store
from iufbench.reporting.store import Run
from iufbench.reporting.tables.build import read_tables, save_tables
from iufbench.reporting.tables.render import render
from iufbench.reporting.tables.table import Table
from iufbench.support.errors import InputError
from iufbench.support.files import PathOrText


@dataclass(frozen=True)
class ShownTable(Table):
    """A table that prints as Markdown and is displayed by notebooks."""

    def frame(self) -> pd.DataFrame:
        """Numbers as float (means over seeds, in the table's unit), everything else as text."""
        heads = [" ".join(filter(None, (column.group, column.title))) for column in self.columns]
        rows = [
            [*row.labels, *(cell.text if cell.value is None else cell.value for cell in row.cells)]
            for row in self.rows
        ]
        return pd.DataFrame(rows, columns=[*self.label_columns, *heads])

    def __str__(self) -> str:
        return render(self, "md")

    def _repr_html_(self) -> str:
        return render(self, "html")


@dataclass(frozen=True)
class Tables:
    """The tables of a results folder; ``paths`` are the files written. A notebook displays all of them."""

    tables: tuple[ShownTable, ...]
    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[ShownTable]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, name: str) -> ShownTable:
        """Select a table by name, the stem of its files. Raises InputError for an unknown name."""
        found = {table.name: table for table in self.tables}
        if name not in found:
            raise InputError(f"no table {name!r}; known are {', '.join(found)}")
        return found[name]

    def _repr_html_(self) -> str:
        return "\n".join(table._repr_html_() for table in self.tables)


def find_runs(
    results: PathOrText = "results",
    *,
    dataset: str | None = None,
    protocol: str | None = None,
    strategy: str | None = None,
    incomplete: bool = False,
) -> list[Run]:
    """Find the runs below ``results``, sorted by id.

    Args:
        results: Results folder.
        dataset: Only runs on this data set, such as ``visa`` or ``visa-synthetic``.
        protocol: Only runs of the protocol with this id.
        strategy: Only runs of this strategy.
        incomplete: Include unfinished runs.

    Returns:
        The runs. Corrupted directories are skipped, each with a Python warning.
    """
    runs, skipped = store.find_runs(Path(results), include_incomplete=incomplete)
    for path, reason in skipped:
        warnings.warn(f"skipped {path}: {reason}", stacklevel=2)

    def fits(run: Run) -> bool:
        names = (run.record.dataset.name, run.record.protocol.id, run.record.strategy.name)
        return all(want in (None, name) for want, name in zip((dataset, protocol, strategy), names))

    return [run for run in runs if fits(run)]


def tables(
    results: PathOrText = "results",
    out: PathOrText | None = None,
    formats: Sequence[str] = ("md",),
    strict: bool = False,
) -> Tables:
    """Build tables of all finished runs, beside published numbers, like ``iufbench tables``.

    Args:
        results: Results folder.
        out: Output folder; None: ``<results>/tables``.
        formats: Any of ``md``, ``tex``, ``csv``, ``html``.
        strict: Raise RunError if a run is corrupted or inconsistent, instead of a warning on stderr.

    Returns:
        The tables by name, and the files written.
    """
    made = read_tables(Path(results), strict)
    paths = save_tables(made, _out(out, results, "tables"), formats)
    return Tables(tuple(ShownTable(**vars(table)) for table in made), tuple(paths))


def figures(
    results: PathOrText = "results",
    out: PathOrText | None = None,
    *,
    qualitative: bool = False,
    objects: str | Sequence[str] | None = None,
    strategies: str | Sequence[str] | None = None,
    matrices: bool = False,
    highlight: str | Sequence[str] | None = None,
    strict: bool = False,
) -> list[Path]:
    """Draw the figures of all finished runs, like ``iufbench figures``.

    Args:
        results: Results folder.
        out: Output folder; None: ``<results>/figures``.
        qualitative: Draw only images with anomaly maps, from saved maps.
        objects: With ``qualitative``, only these.
        strategies: With ``qualitative``, only these.
        matrices: Include the matrix of one seed of every recipe.
        highlight: Strategies that curves show in colour; the others are grey.
        strict: Raise RunError if a run is corrupted or inconsistent, instead of a warning on stderr.

    Returns:
        The files written.
    """
    from iufbench.reporting.figures.build import write_figures, write_qualitative

    folder = _out(out, results, "figures")
    if qualitative:
        names, methods = ([x] if isinstance(x, str) else x for x in (objects, strategies))
        return write_qualitative(Path(results), folder, names, methods, strict)
    if objects is not None or strategies is not None:
        raise InputError("--objects and --strategies apply to anomaly maps only: add --qualitative")
    wanted = [highlight] if isinstance(highlight, str) else highlight
    return write_figures(Path(results), folder, strict, matrices=matrices, highlight=wanted)


def report(results: PathOrText = "results", out: PathOrText | None = None, strict: bool = False) -> Path:
    """Write all results into one HTML file that works offline, like ``iufbench report``.

    Args:
        results: Results folder.
        out: Output file; None: ``<results>/report.html``.
        strict: Raise RunError if a run is corrupted or inconsistent, instead of a warning on stderr.

    Returns:
        The output file.
    """
    from iufbench.reporting.report.build import write_report

    return write_report(Path(results), _out(out, results, "report.html"), strict)


def board_build(results: PathOrText = "results", out: PathOrText | None = None, strict: bool = False) -> Path:
    """Rank all finished runs on pages that need no server: ``iufbench board build``.

    Args:
        results: Folder of the results.
        out: Folder of the site, which replaces an older board; None: ``<results>/board``.
        strict: Raise RunError when a run is corrupted or inconsistent, instead of a warning on stderr.

    Returns:
        The index page.

    Raises:
        InputError: There is no run, or ``out`` is something else than a board.
    """
    from iufbench.reporting.board.build import write_board

    return write_board(Path(results), _out(out, results, "board"), strict)


def compare(
    first: PathOrText,
    second: PathOrText,
    metric: str = "auroc",
    *,
    results: PathOrText = "results",
    strict: bool = False,
) -> ShownTable:
    """Compare two strategies over the seeds they share, like ``iufbench compare``.

    Args:
        first: Name of a strategy, run id with or without the seed, or run directory.
        second: The other one.
        metric: A metric of ``metrics.csv``, such as ``auroc`` or ``ap``.
        results: Results folder.
        strict: Raise RunError if a run is corrupted or inconsistent, instead of a warning on stderr.

    Returns:
        Per-seed differences, bootstrap interval, effect size and p-value.

    Raises:
        InputError: A name is unknown or ambiguous, or the two are not comparable.
    """
    table = comparing.compare(Path(results), str(first), str(second), metric, strict)
    return ShownTable(**vars(table))


def _out(given: PathOrText | None, results: PathOrText, name: str) -> Path:
    return Path(results) / name if given is None else Path(given)
