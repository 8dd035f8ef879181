"""AUROC against the number of objects: one protocol, or the panels of the paper's figures 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iufbench.metrics.continual import curve
from iufbench.reporting.figures.drawing import (
    Look,
    Style,
    head,
    legend,
    new_figure,
    plain,
    style_context,
    styles,
)
from iufbench.reporting.groups import Group, group_runs
from iufbench.reporting.literature import Published
from iufbench.reporting.store import Run
from iufbench.reporting.tables.results import lines_of, protocol_title


def _note(groups: Sequence[Group], beside: bool) -> str:
    parts = []
    if any(len(group.runs) > 1 for group in groups):
        parts.append("bands: ± one standard deviation over seeds")
    if beside:
        parts.append("thin dashed: published, digitised from the paper's figures")
    return "; ".join(parts)


def run_curves(group: Group, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of objects [T] (of experiences where objects come again) and c_t in percent [n, T], the mean
    AUROC of the objects seen, one row a seed."""
    first = group.runs[0].matrix("image").introduced
    counts = np.array([(first <= t).sum() for t in range(len(group.runs[0].experiences))])
    if (np.diff(counts) == 0).any():  # objects come again: the experiences themselves are the axis
        counts = np.arange(1, len(counts) + 1)
    curves = []
    for run in group.runs:
        if "auroc" in run.names(level):
            matrix = run.matrix(level)
            curves.append(100 * curve(matrix.values, matrix.introduced))
    return counts, np.array(curves).reshape(len(curves), len(counts))


def curve_figure(runs: Sequence[Run], published: Published, protocol: str, level: str) -> Figure:
    """One panel: mean over seeds with a band of one standard deviation, published curves thin beneath.

    Published curves are left out for synthetic data, which they do not describe.
    """
    groups = [g for g in group_runs(runs) if g.protocol == protocol]
    synthetic = any(run.synthetic for run in runs)
    with style_context():
        figure = new_figure(5.6, 3.6)
        axes = figure.subplots()
        look = styles([g.strategy for g in groups], published)
        _panel(axes, groups, published, protocol, level, look, beside=not synthetic)
        axes.set_ylabel(f"{level} AUROC (%)")
        axes.set_xlabel("objects seen")
        legend(figure, _note(groups, not synthetic and protocol in published.protocols))
        dataset = groups[0].dataset_title
        head(figure, f"{dataset}, {protocol_title(protocol, groups, published)}, {level} level", synthetic)
    return figure


def paper_figure(
    groups: Sequence[Group], published: Published, dataset: str, look: Look | None = None
) -> Figure:
    """The paper's figure 1 (MVTec AD) or 2 (VisA), image level above pixel level, runs over published curves.

    ``dataset`` is the title in the published files. Panels of protocols without a run show the published
    curves alone.
    """
    rows = published.curves[published.curves["dataset"] == dataset]
    panels = rows.drop_duplicates("panel").sort_values("panel")
    columns = len(panels) // 2
    with style_context():
        figure = new_figure(2.45 * columns, 5.6)
        grid = figure.subplots(2, columns, squeeze=False)
        look = look or styles([g.strategy for g in groups], published)
        for axes, panel in zip(grid.flat, panels.itertuples()):
            _panel(axes, groups, published, panel.protocol, panel.level, look, beside=True)
            axes.set_title(panel.panel, loc="left")
        for axes, level in zip(grid[:, 0], ("image", "pixel")):
            axes.set_ylabel(f"{level} AUROC (%)")
        for axes in grid[1]:
            axes.set_xlabel("objects seen")
        legend(figure, _note(groups, True))
        head(figure, f"{dataset}: AUROC against the number of objects", synthetic=False)
    return figure


def stream_figure(
    groups: Sequence[Group], published: Published, levels: Sequence[str], look: Look | None = None
) -> Figure:
    """All groups of one protocol, one panel a level; published curves beneath where there are any."""
    info = groups[0].record
    synthetic = info.dataset.synthetic
    protocol = groups[0].protocol
    with style_context():
        figure = new_figure(0.6 + 3.4 * len(levels), 3.6)
        grid = figure.subplots(1, len(levels), squeeze=False)[0]
        look = look or styles([g.strategy for g in groups], published)
        for axes, level in zip(grid, levels):
            _panel(axes, groups, published, protocol, level, look, beside=not synthetic)
            axes.set_title(f"{level} level", loc="left")
            axes.set_xlabel("objects seen")
        grid[0].set_ylabel("AUROC (%)")
        legend(figure, _note(groups, not synthetic and protocol in published.protocols))
        dataset = groups[0].dataset_title
        head(figure, f"{dataset}, {protocol_title(protocol, groups, published)}", synthetic)
    return figure


def _panel(
    axes: Axes,
    groups: Sequence[Group],
    published: Published,
    protocol: str,
    level: str,
    look: Look,
    beside: bool,
) -> None:
    ticks: set[int] = set()
    if beside:
        rows = published.curves
        rows = rows[(rows["protocol"] == protocol) & (rows["level"] == level)]
        for method in published.methods_of():
            points = rows[rows["method"] == method.name].sort_values("n_objects")
            if points.empty:
                continue
            style = look[method.strategies[0]]
            axes.plot(
                points["n_objects"],
                points["auroc_percent"],
                color=style.colour,
                lw=0.8,
                ls=(0, (4, 2)),
                alpha=0.75,
                marker=style.marker,
                markersize=2.5,
                markerfacecolor="white",
                markeredgewidth=0.6,
                label=plain(f"{method.title} (digitised)"),
                zorder=2,
            )
            ticks.update(int(n) for n in points["n_objects"])
    present = {g.strategy for g in groups}
    for strategy in (name for name in look if name in present):
        lines = lines_of([g for g in groups if g.strategy == strategy])
        for number, line in enumerate(lines):
            for group in line.groups:
                if group.protocol != protocol:
                    continue
                counts, curves = run_curves(group, level)
                if not len(curves):
                    continue
                label = group.title + (f" [{line.label}]" if len(lines) > 1 else "")
                _measured(axes, counts, curves, look[strategy], plain(label), dash=number)
                ticks.update(int(n) for n in counts)
    axes.set_xticks(_spaced(sorted(ticks)))
    axes.margins(x=0.06)
    axes.grid(axis="y")


def _measured(
    axes: Axes, counts: np.ndarray, curves: np.ndarray, style: Style, label: str, dash: int
) -> None:
    """Mean over seeds (every seed must have a value) and the band of one sample standard deviation."""
    mean = curves.mean(axis=0)
    dashes = ["-", (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (5, 1))]
    axes.plot(
        counts,
        mean,
        color=style.colour,
        lw=1.8,
        ls=dashes[dash % len(dashes)],
        marker=style.marker,
        markersize=4.5,
        label=label,
        zorder=4,
    )
    if len(curves) > 1:
        sd = curves.std(axis=0, ddof=1)
        axes.fill_between(counts, mean - sd, mean + sd, color=style.colour, alpha=0.18, lw=0, zorder=3)


def _spaced(ticks: list[int]) -> list[int]:
    """All ticks when they are few, else every second or third, always with the last."""
    step = 1 + len(ticks) // 9
    return ticks[::-1][::step][::-1]
