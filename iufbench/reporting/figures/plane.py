"""The learning-forgetting plane: what a strategy learnt in increments, and what it retained."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iufbench.reporting.figures.drawing import (
    NOTE_LETTERS,
    Look,
    head,
    legend,
    new_figure,
    no_value,
    plain,
    style_context,
    styles,
)
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.tables.plane import CORNERS, MISSING, Point, points
from iufbench.reporting.tables.results import protocol_title
from iufbench.reporting.undefined import undefined

SPAN = 2.0  # minimum range of an axis in percentage points


def plane_figure(
    groups: Sequence[Group], published: Published, levels: Sequence[str], look: Look | None = None
) -> Figure:
    """One panel per level: plasticity to the right, retention upwards, in percentage points of AUROC.

    One mark per recipe with one standard deviation over seeds; ``frozen``, ``finetune``, ``joint`` and
    ``separate`` are larger and labelled. Strategies without zero-shot values are listed, not drawn.
    """
    look = look or styles(groups)
    with style_context():
        figure = new_figure(0.8 + 3.6 * len(levels), 4.6)
        grid = figure.subplots(1, len(levels), squeeze=False)[0]
        missing: dict[str, None] = {}
        for axes, level in zip(grid, levels):
            found = points(groups, level)
            missing |= dict.fromkeys(
                p.group.title
                for p in found
                if not p.complete and not any(undefined(run, level) for run in p.group.runs)
            )
            for point in found:
                if point.complete:
                    _mark(axes, point, look, groups)
            axes.axhline(0, color="#999999", lw=0.8, zorder=1)
            axes.axvline(0, color="#999999", lw=0.8, zorder=1)
            axes.set_title(f"{level} level", loc="left")
            axes.set_xlabel("plasticity: new objects, learnt minus zero-shot (points)")
            axes.margins(0.14)
            _at_least(axes, SPAN)
            axes.grid()
        grid[0].set_ylabel("retention: old objects, final minus learnt (points)")
        note = "bars: ± one standard deviation over seeds; joint training: retention 0 by construction"
        if missing:
            names = textwrap.fill(", ".join(missing), int(NOTE_LETTERS * figure.get_figwidth()))
            note += f"\nnot drawn, {MISSING}:\n{names}"
        legend(figure, note + no_value(groups, levels, figure, "without a value and not drawn:"))
        title = f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}"
        head(figure, f"{title}: learning and forgetting", groups[0].record.dataset.synthetic)
    return figure


def _mark(axes: Axes, point: Point, look: Look, groups: Sequence[Group]) -> None:
    group, style = point.group, look[point.group.strategy]
    several = [g for g in groups if g.strategy == group.strategy]
    label = group.title
    if len(several) > 1:
        label += f" [{group.preset} {group.recipe_hash}]"
    bars = {}
    if len(point.plasticity) > 1:
        bars = {"xerr": point.plasticity.std(ddof=1), "yerr": point.retention.std(ddof=1)}
    corner = group.strategy in CORNERS
    x, y = point.plasticity.mean(), point.retention.mean()
    axes.errorbar(
        x,
        y,
        **bars,
        color=style.colour,
        marker=style.marker,
        ms=9 if corner else 6,
        mfc=style.colour if group is several[0] else "white",
        ls="none",
        lw=0.8,
        label=plain(label),
        zorder=3,
    )
    if corner:
        axes.annotate(plain(group.strategy), (x, y), xytext=(6, 6), textcoords="offset points", fontsize=7.5)


def _at_least(axes: Axes, span: float) -> None:
    """Widen axes on which all points agree, so that rounding errors do not look like differences."""
    for limits, change in ((axes.get_xlim(), axes.set_xlim), (axes.get_ylim(), axes.set_ylim)):
        lack = span - (limits[1] - limits[0])
        if lack > 0:
            change(limits[0] - lack / 2, limits[1] + lack / 2)
