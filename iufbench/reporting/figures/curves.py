"""AUROC against the number of objects: one protocol, or the panels of the paper's figures 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iufbench.cards.strategies import FAMILIES
from iufbench.metrics.continual import curve
from iufbench.reporting.figures.drawing import (
    GREY,
    Look,
    Style,
    head,
    legend,
    new_figure,
    no_value,
    plain,
    style_context,
    styles,
)
from iufbench.reporting.groups import Group, group_runs
from iufbench.reporting.literature import Published
from iufbench.reporting.store import LEVELS, Run
from iufbench.reporting.tables.results import lines_of, protocol_title


def _note(figure: Figure, groups: Sequence[Group], beside: bool, levels: Sequence[str]) -> str:
    parts = []
    if any(len(group.runs) > 1 for group in groups):
        parts.append("bands: ± one standard deviation over seeds")
    if beside:
        parts.append("thin dashed: published, digitised from the paper's figures")
    missing = no_value(groups, levels, figure, "crosses: no mean over the objects seen")
    if missing:
        parts.append(missing.strip())
    return "; ".join(parts)


def _seen(group: Group) -> np.ndarray:
    """How many objects have been trained on after each experience, [T]."""
    first = group.runs[0].matrix("image").introduced
    return np.array([(first <= t).sum() for t in range(len(group.runs[0].experiences))])


def _recur(group: Group) -> bool:
    """Whether an experience brings no new object."""
    return bool((np.diff(_seen(group)) == 0).any())


def _axis_title(group: Group) -> str:
    return "experiences" if _recur(group) else "objects seen"


def run_curves(group: Group, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of objects [T] (of experiences if objects recur) and c_t in percent [n, T], the mean AUROC of
    the objects seen, one row per seed.
    """
    counts = _seen(group)
    if _recur(group):
        counts = np.arange(1, len(counts) + 1)
    curves = []
    for run in group.runs:
        if "auroc" in run.names(level):
            matrix = run.matrix(level)
            curves.append(100 * curve(matrix.values, matrix.introduced))
    return counts, np.array(curves).reshape(len(curves), len(counts))


def curve_figure(runs: Sequence[Run], published: Published, protocol: str, level: str) -> Figure:
    """One panel: mean over seeds with a band of one standard deviation, above thin published curves.

    Published curves are omitted for synthetic data.
    """
    groups = [g for g in group_runs(runs) if g.protocol == protocol]
    synthetic = any(run.synthetic for run in runs)
    with style_context():
        figure = new_figure(5.6, 3.6)
        axes = figure.subplots()
        look = styles(groups)
        _panel(axes, groups, published, protocol, level, look, beside=not synthetic)
        axes.set_ylabel(f"{level} AUROC (%)")
        axes.set_xlabel(_axis_title(groups[0]))
        legend(figure, _note(figure, groups, not synthetic and protocol in published.protocols, [level]))
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
        look = look or styles(groups)
        for axes, panel in zip(grid.flat, panels.itertuples()):
            _panel(axes, groups, published, panel.protocol, panel.level, look, beside=True)
            axes.set_title(panel.panel, loc="left")
        for axes, level in zip(grid[:, 0], ("image", "pixel")):
            axes.set_ylabel(f"{level} AUROC (%)")
        for axes in grid[1]:
            axes.set_xlabel("objects seen")
        legend(figure, _note(figure, groups, True, LEVELS))
        head(figure, f"{dataset}: AUROC against the number of objects", synthetic=False)
    return figure


MOST = 10
"""More strategies than this cannot be told apart in one panel."""


def stream_figure(
    groups: Sequence[Group],
    published: Published,
    levels: Sequence[str],
    look: Look | None = None,
    highlight: Sequence[str] = (),
) -> Figure:
    """All groups of one protocol, labelled at the ends of their lines, above published curves if there are
    any.

    Up to ten groups share a panel per level; more have one column per family, with the other groups in grey.
    ``highlight`` selects the strategies to show in colour in a single column instead.
    """
    synthetic, protocol = groups[0].record.dataset.synthetic, groups[0].protocol
    look = look or styles(groups)
    columns = _columns(groups, highlight)
    with style_context():
        if len(columns) == 1:
            figure = new_figure(0.6 + 4.2 * len(levels), 3.6)
            grid = figure.subplots(1, len(levels), squeeze=False).T
        else:
            figure = new_figure(0.6 + 3.1 * len(columns), 0.8 + 2.6 * len(levels))
            grid = figure.subplots(len(levels), len(columns), squeeze=False, sharex=True, sharey="row")
        for row, level in zip(grid, levels):
            for axes, (family, members) in zip(row, columns.items()):
                rest = [g for g in groups if g not in members]
                beside = not synthetic and len(columns) == 1
                _background(axes, rest, level)
                _panel(axes, members, published, protocol, level, look, beside=beside)
                _name_ends(axes, members, level, look)
                name = f"{family}, {level} level" if family else f"{level} level"
                axes.set_title(name, loc="left")
                axes.set_xlabel(_axis_title(groups[0]))
            row[0].set_ylabel("AUROC (%)")
        beside = not synthetic and len(columns) == 1 and protocol in published.protocols
        note = _note(figure, groups, beside, levels)
        if any(len(members) < len(groups) for members in columns.values()):
            note += ("; " if note else "") + "grey: all other strategies"
        if len(columns) == 1:
            legend(figure, note)
        else:
            figure.supxlabel(note, fontsize=7)
        title = f"{groups[0].dataset_title}, {protocol_title(protocol, groups, published)}"
        head(figure, title, synthetic)
    return figure


def _columns(groups: Sequence[Group], highlight: Sequence[str]) -> dict[str, list[Group]]:
    """Title -> the groups shown in colour in a column of panels."""
    if highlight:
        return {"": [g for g in groups if g.strategy in highlight] or list(groups)}
    if len(groups) <= MOST:
        return {"": list(groups)}
    found: dict[str, list[Group]] = {}
    for family, title in FAMILIES.items():
        members = [g for g in groups if g.family == family]
        parts = [members[k : k + MOST] for k in range(0, len(members), MOST)]
        for number, part in enumerate(parts, start=1):
            found[title if len(parts) == 1 else f"{title} {number}"] = part
    return found


def _background(axes: Axes, groups: Sequence[Group], level: str) -> None:
    for group in groups:
        counts, curves = run_curves(group, level)
        if len(curves):
            axes.plot(counts, curves.mean(axis=0), color=GREY, lw=0.8, zorder=1)


def _name_ends(axes: Axes, groups: Sequence[Group], level: str, look: Look) -> None:
    """Label every strategy to the right of its line's end; overlapping labels are moved apart."""
    ends = []
    for group in groups:
        curves = run_curves(group, level)[1]
        if len(curves) and not np.isnan(curves[:, -1]).any():
            ends.append((float(curves[:, -1].mean()), group))
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    ends.sort(key=lambda end: end[0])
    places = [y for y, _ in ends]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    shift = max(0.0, places[-1] - high) if places else 0.0
    for place, (_, group) in zip(places, ends):
        axes.annotate(
            plain(group.title),
            (1.02, (place - shift - low) / (high - low)),
            xycoords="axes fraction",
            color=look[group.strategy].colour,
            fontsize=6.8,
            va="center",
        )


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
    missing = counts[np.isnan(mean)]
    if len(missing):  # at the lower edge, regardless of the values
        edge = axes.get_xaxis_transform()
        axes.plot(
            missing, np.full(len(missing), 0.03), "x", color=style.colour, ms=6, transform=edge, zorder=5
        )
    if len(curves) > 1:
        sd = curves.std(axis=0, ddof=1)
        axes.fill_between(counts, mean - sd, mean + sd, color=style.colour, alpha=0.18, lw=0, zorder=3)


def _spaced(ticks: list[int]) -> list[int]:
    """All ticks if they are few, else every second or third, always including the last."""
    step = 1 + len(ticks) // 9
    return ticks[::-1][::step][::-1]
