"""``iufbench report``: one HTML file with everything, for a browser without a network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from iufbench.reporting.collect import Collection, collect
from iufbench.reporting.examples import make_example
from iufbench.reporting.figures.curves import stream_figure
from iufbench.reporting.figures.drawing import drawn, styles
from iufbench.reporting.figures.qualitative import caption, qualitative_figure, qualitative_figures
from iufbench.reporting.groups import Group, group_runs
from iufbench.reporting.literature import Published
from iufbench.reporting.literature import published as published_numbers
from iufbench.reporting.report.page import page
from iufbench.reporting.report.parts import definition_list, overview, provenance
from iufbench.reporting.store import LEVELS
from iufbench.reporting.tables.build import build_tables, warn_on_stderr
from iufbench.reporting.tables.render import render
from iufbench.reporting.tables.results import protocol_title
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
    """Write the report of all complete runs below ``results_dir`` into ``out_file``; returns its path.

    Damaged, inconsistent and incomplete runs are named in the report and passed to ``warn``. Raises
    InputError when there is no run, RunError with ``strict`` when a run is damaged or inconsistent.
    """
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    return write_text(out_file, build_report(collection, published_numbers()))


def build_report(collection: Collection, published: Published) -> str:
    """The report as HTML text: the same runs give the same text."""
    groups = group_runs(collection.runs)
    tables = build_tables(collection.runs, published, collection.footnotes)
    counts = f"{len(collection.runs)} runs of {len(groups)} combinations of protocol, strategy and recipe"
    sections = {
        "overview": ("Overview", overview(groups, published)),
        "tables": (
            "Tables",
            "\n".join(_folded(t.title, render(t, "html"), k < 2) for k, t in enumerate(tables)),
        ),
        "curves": ("Curves", _curves(groups, published)),
        "examples": ("Anomaly maps", _examples(groups, published)),
        "runs": (
            "Runs: matrices and provenance",
            "\n".join(provenance(run, collection.footnotes.get(run.id, ())) for run in collection.runs),
        ),
        "definitions": ("Definitions", f"{NOTATION}{definition_list()}"),
    }
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, (title, _) in sections.items())
    parts = [
        '<a class="skip" href="#overview">Skip to the overview</a>',
        f"<header><h1>{escape(TITLE)}</h1>",
        f'<p class="soft">{escape(counts)}. Made by iufbench {escape(__version__)}.</p>',
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>',
        _warnings(collection),
    ]
    for key, (title, content) in sections.items():
        parts.append(f'<section id="{key}"><h2>{escape(title)}</h2>\n{content}</section>')
    return page(TITLE, "\n".join([*parts, "</main>"]))


NOTATION = (
    "<p>R[t,o] is the metric on object o after experience t, i(o) the experience that introduced o, "
    "T the number of experiences, counted from 0 to T-1.</p>"
)


def _warnings(collection: Collection) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in collection.warnings())
    if not lines:
        return ""
    return f'<section class="warnings" aria-label="Warnings"><ul>{lines}</ul></section>'


def _folded(title: str, content: str, is_open: bool) -> str:
    return (
        f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>\n"
        f'<div class="scroll" role="region" aria-label="{escape(title)}" tabindex="0">{content}</div>'
        "</details>"
    )


def _curves(groups: Sequence[Group], published: Published) -> str:
    look = styles(groups)
    streams: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        streams.setdefault((group.dataset, group.protocol), []).append(group)
    parts = []
    for (_, protocol), members in streams.items():
        levels = [level for level in LEVELS if any("auroc" in g.runs[0].names(level) for g in members)]
        if not levels:
            continue
        title = f"{members[0].dataset_title}, "
        title += protocol_title(protocol, members, published)
        names = ", ".join(dict.fromkeys(g.title for g in members))
        alternative = f"AUROC against the number of objects for {names}; the values are in the tables above"
        source = _inline(stream_figure(members, published, levels, look))
        parts.append(f'<h3>{escape(title)}</h3>\n<img alt="{escape(alternative)}" src="{source}">')
    return "\n".join(parts)


def _examples(groups: Sequence[Group], published: Published) -> str:
    """Anomaly maps of every object whose maps were kept; how to keep them where there are none."""
    parts = []
    for wanted in qualitative_figures(groups):
        try:
            example = make_example(wanted.groups, wanted.object)
        except (InputError, RunError) as error:
            parts.append(f'<p class="warnings">{escape(f"{wanted.stem}: {error}")}</p>')
            continue
        image = (
            f'<img alt="{escape(caption(example))}" src="{_inline(qualitative_figure(example, published))}">'
        )
        parts.append(_folded(wanted.title(published), image, not parts))
    if not parts:
        command = "iufbench evaluate RUN --save-maps"
        return f'<p class="soft">No run has kept its anomaly maps; keep them with: {command}</p>'
    return "\n".join(parts)


def _inline(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(drawn(figure, "png", DPI)).decode("ascii")
