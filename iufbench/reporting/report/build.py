"""``iufbench report``: one HTML file with all results, which works offline."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from iufbench.metrics.summaries import DEFINITIONS
from iufbench.reporting.against_frozen import BETTER, NOT_BETTER, TOO_FEW
from iufbench.reporting.collect import Collection, collect
from iufbench.reporting.examples import make_example
from iufbench.reporting.figures.alarms import alarm_figure, can_drift
from iufbench.reporting.figures.curves import stream_figure
from iufbench.reporting.figures.drawing import drawn, styles
from iufbench.reporting.figures.profiles import profile_figure
from iufbench.reporting.figures.qualitative import caption, qualitative_figure, qualitative_figures
from iufbench.reporting.groups import Group, group_runs
from iufbench.reporting.html import fill
from iufbench.reporting.literature import Published
from iufbench.reporting.literature import published as published_numbers
from iufbench.reporting.report import parts, ranking
from iufbench.reporting.report.parts import FILTERS, anchor, choices, overview, provenance
from iufbench.reporting.store import LEVELS
from iufbench.reporting.tables.build import build_tables, warn_on_stderr
from iufbench.reporting.tables.render import cell_text, render
from iufbench.reporting.tables.results import protocol_title
from iufbench.reporting.tables.table import Cell
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import write_text
from iufbench.support.version import __version__

DPI = 110
TITLE = "iufbench: results"


def write_report(
    results_dir: Path | str,
    out_file: Path | str,
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
) -> Path:
    """Write the report of all complete runs.

    Args:
        results_dir: Results folder.
        out_file: Output file.
        strict: Raise RunError if a run is corrupted or inconsistent.
        warn: Called with each warning; all are also listed in the report.

    Returns:
        The output file.

    Raises:
        InputError: There is no complete run.
        RunError: With ``strict``, a run is corrupted or inconsistent.
    """
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    return write_text(out_file, build_report(collection, published_numbers()))


SECTIONS = {
    "overview": "Overview",
    "tables": "Tables",
    "curves": "Curves",
    "examples": "Anomaly maps",
    "runs": "Runs: matrices and provenance",
    "definitions": "Definitions",
}
VERDICTS = {BETTER: "better", NOT_BETTER: "not better", TOO_FEW: "too few objects"}


def build_report(collection: Collection, published: Published) -> str:
    """The report as HTML; deterministic for the same runs."""
    groups = group_runs(collection.runs)
    shared = {"anchor": anchor, "definitions": DEFINITIONS}
    entries = overview(groups, published)
    rows = fill(
        "overview",
        entries=entries,
        filters=FILTERS,
        choices=choices(entries),
        summaries=parts.SUMMARIES,
        cell_text=lambda cell: cell_text(cell, True),
        **shared,
    )
    ranked = [
        fill(
            "ranking",
            ranking=found,
            summaries=ranking.SUMMARIES,
            ranked_by=ranking.RANKED_BY,
            verdicts=VERDICTS,
            cell_text=_without_count,
            **shared,
        )
        for found in ranking.rankings(groups, published)
    ]
    runs = [provenance(run, collection.footnotes.get(run.id, ())) for run in collection.runs]
    return fill(
        "page",
        title=TITLE,
        version=__version__,
        counts=f"{len(collection.runs)} runs of {len(groups)} combinations of protocol, strategy and recipe",
        warnings=collection.warnings(),
        sections=SECTIONS,
        rankings=ranked,
        overview=rows,
        rows=len(entries),
        tables=[
            (table.title, Markup(render(table, "html")))
            for table in build_tables(collection.runs, published, collection.footnotes)
        ],
        curves=_curves(groups, published),
        examples=_examples(groups, published),
        runs=[fill("run", found=found, anchor=anchor) for found in runs],
        definitions=DEFINITIONS,
    )


def _without_count(cell: Cell) -> str:
    """Mean and standard deviation of a cell; the number of seeds has its own column."""
    spread = "" if cell.sd is None else f" ±\N{NO-BREAK SPACE}{cell.sd:.{cell.decimals}f}"
    return cell_text(cell, False) + spread


def _curves(groups: Sequence[Group], published: Published) -> list[tuple[str, str, str]]:
    """Title, alternative text and image of the curves of every data set and protocol."""
    look = styles(groups)
    streams: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        streams.setdefault((group.dataset, group.protocol), []).append(group)
    found = []
    for (_, protocol), members in streams.items():
        levels = [level for level in LEVELS if any("auroc" in g.runs[0].names(level) for g in members)]
        if not levels:
            continue
        title = f"{members[0].dataset_title}, {protocol_title(protocol, members, published)}"
        names = ", ".join(dict.fromkeys(g.title for g in members))
        alternative = f"AUROC against the number of objects for {names}; the values are in the tables above"
        found.append((title, alternative, _inline(stream_figure(members, published, levels, look))))
        if len(members) > 1:
            alternative = (
                f"Share of objects and seeds above an {levels[0]} AUROC after the last experience for "
                f"{names}; interquartile means with their intervals are in the tables above"
            )
            figure = profile_figure(members, published, levels[0], look)
            found.append((f"{title}: performance profiles", alternative, _inline(figure)))
        if can_drift(members):
            alternative = f"False alarms at frozen thresholds for {names}; the values are in the tables above"
            picture = _inline(alarm_figure(members, published, look))
            found.append((f"{title}: false alarms", alternative, picture))
    return found


@dataclass(frozen=True)
class Example:
    """The anomaly maps of one object: an image with its caption, or why there is none."""

    title: str
    caption: str = ""
    source: str = ""
    problem: str = ""


def _examples(groups: Sequence[Group], published: Published) -> list[Example]:
    """Anomaly maps of every object with saved maps."""
    found = []
    for wanted in qualitative_figures(groups):
        title = wanted.title(published)
        try:
            example = make_example(wanted.groups, wanted.object)
        except (InputError, RunError) as error:
            found.append(Example(title, problem=f"{wanted.stem}: {error}"))
            continue
        found.append(Example(title, caption(example), _inline(qualitative_figure(example, published))))
    return found


def _inline(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(drawn(figure, "png", DPI)).decode("ascii")
