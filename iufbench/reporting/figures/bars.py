"""Forgetting of each object, and quality against cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from iufbench.metrics.continual import forgetting_per_object
from iufbench.reporting.figures.drawing import (
    WARNING,
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
from iufbench.reporting.tables.details import cost, per_image, timed_on
from iufbench.reporting.tables.results import protocol_title

PANELS_PER_ROW = 4
MOST = 10


def forgetting_figure(
    groups: Sequence[Group], published: Published, level: str, look: Look | None = None
) -> Figure:
    """Per object: best AUROC since it was learnt minus the last one, in percentage points; one panel per
    group.

    Bars are means over seeds with one standard deviation; the dotted line is the mean over objects. Objects
    of the last experience cannot be forgotten and have no bar; objects without a value have a cross.
    """
    groups = [g for g in groups if "auroc" in g.runs[0].names(level) and not g.joint]
    objects = list(dict.fromkeys(o for g in groups for o in g.runs[0].objects))
    values = [100 * np.array([_forgotten(run, level, objects) for run in g.runs]) for g in groups]
    if len(groups) > MOST:
        return _forgetting_of_many(groups, values, published, level, look or styles(groups))
    rows = -(-len(groups) // PANELS_PER_ROW)
    columns = -(-len(groups) // rows)
    with style_context():
        figure = new_figure(max(4.2, 1.2 + 1.75 * columns), 0.75 + rows * (0.55 + 0.17 * len(objects)))
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        look = look or styles(groups)
        several = {g.strategy for g in groups if sum(h.strategy == g.strategy for h in groups) > 1}
        for axes, group, drops in zip(grid.flat, groups, values):
            mean = drops.mean(axis=0)
            spread = drops.std(axis=0, ddof=1) if len(drops) > 1 else None
            axes.barh(range(len(objects)), np.nan_to_num(mean), color=look[group.strategy].colour, height=0.7)
            if spread is not None:
                axes.errorbar(mean, range(len(objects)), xerr=spread, fmt="none", ecolor="#555555", lw=0.8)
            axes.axvline(0, color="black", lw=0.6)
            old = _can_be_forgotten(group, level, objects)
            unknown = np.flatnonzero(np.isnan(mean) & old)
            if len(unknown):
                axes.plot(np.zeros(len(unknown)), unknown, "x", color=WARNING, ms=6, clip_on=False, zorder=5)
            if old.any() and not len(unknown):
                axes.axvline(mean[old].mean(), color="#444444", lw=0.9, ls=":")
            title = group.title + (
                f"\n{group.preset} {group.recipe_hash}" if group.strategy in several else ""
            )
            axes.set_title(plain(title), loc="left")
            axes.grid(axis="x")
        for k, axes in enumerate(grid.flat):
            axes.set_visible(k < len(groups))
            axes.tick_params(labelbottom=k + columns >= len(groups))
        grid[0, 0].set_yticks(range(len(objects)), [plain(o.replace("_", " ")) for o in objects])
        grid[0, 0].invert_yaxis()
        label = f"forgetting of {level} AUROC (percentage points; dotted: mean over objects"
        crosses = no_value(groups, [level], figure, "crosses: no value, and no mean over objects")
        figure.set_figheight(figure.get_figheight() + 0.15 * crosses.count("\n"))
        figure.supxlabel(plain(f"{label};\nno bar: objects of the last experience){crosses}"), fontsize=8)
        info = groups[0].record
        dataset = groups[0].dataset_title
        title = f"{dataset}, {protocol_title(groups[0].protocol, groups, published)}: forgetting"
        head(figure, title, info.dataset.synthetic)
    return figure


def _forgetting_of_many(
    groups: Sequence[Group], values: Sequence[np.ndarray], published: Published, level: str, look: Look
) -> Figure:
    """One bar per strategy, the mean over objects, least forgetting at the top; spread over seeds."""
    objects = list(dict.fromkeys(o for g in groups for o in g.runs[0].objects))
    means = [drops[:, _can_be_forgotten(g, level, objects)].mean(axis=1) for g, drops in zip(groups, values)]
    order = sorted(range(len(groups)), key=lambda k: float(np.nan_to_num(np.mean(means[k]), nan=np.inf)))
    with style_context():
        figure = new_figure(6.4, 1.1 + 0.19 * len(groups))
        axes = figure.subplots()
        for place, k in enumerate(order):
            if np.isnan(means[k]).any():
                axes.plot(0, place, "x", color=WARNING, ms=6)
                continue
            axes.barh(place, means[k].mean(), color=look[groups[k].strategy].colour, height=0.7)
            if len(means[k]) > 1:
                spread = means[k].std(ddof=1)
                axes.errorbar(means[k].mean(), place, xerr=spread, fmt="none", ecolor="#555555", lw=0.8)
        axes.set_yticks(range(len(order)), [plain(_name(groups[k], groups)) for k in order])
        axes.invert_yaxis()
        axes.axvline(0, color="black", lw=0.6)
        axes.grid(axis="x")
        label = f"forgetting of {level} AUROC, mean over objects not of the last experience (points)"
        missing = no_value(groups, [level], figure, "crosses: no mean over objects")
        axes.set_xlabel(plain(label + missing))
        title = (
            f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}: forgetting"
        )
        head(figure, title, groups[0].record.dataset.synthetic)
    return figure


def _name(group: Group, groups: Sequence[Group]) -> str:
    several = sum(g.strategy == group.strategy for g in groups) > 1
    return f"{group.title} [{group.preset} {group.recipe_hash}]" if several else group.title


def _can_be_forgotten(group: Group, level: str, objects: Sequence[str]) -> np.ndarray:
    """bool [O]: the object was introduced before the last experience of the group's runs."""
    matrix = group.runs[0].matrix(level)
    introduced = dict(zip(matrix.objects, matrix.introduced))
    return np.array([introduced[o] < len(matrix.values) - 1 for o in objects])


def _forgotten(run, level: str, objects: Sequence[str]) -> np.ndarray:  # type: ignore[no-untyped-def]
    matrix = run.matrix(level)
    drops = dict(zip(matrix.objects, forgetting_per_object(matrix.values, matrix.introduced)))
    return np.array([drops[o] for o in objects])


AXES: tuple[tuple[str, Callable, float], ...] = (
    ("training (s)", cost("seconds", "train"), 1.0),
    ("carried from one experience to the next (MB)", cost("costs", "bytes_kept"), 1e-6),
)


def cost_figure(
    groups: Sequence[Group], published: Published, level: str, look: Look | None = None
) -> Figure:
    """ACC against training time and against memory; the line is the Pareto front.

    Joint training is shown but excluded from the front, because it solves an easier task.
    """
    with style_context():
        figure = new_figure(7.0, 3.5)
        grid = figure.subplots(1, 2, sharey=True)
        look = look or styles(groups)
        for axes, (title, read, scale) in zip(grid, AXES):
            _cost_panel(axes, groups, look, level, read, scale)
            axes.set_xlabel(title)
            axes.grid()
        grid[0].set_ylabel(f"ACC, {level} AUROC (%)")
        devices = sorted({r.record.environment.device or "" for g in groups for r in g.runs} - {""})
        bare = [g.title for g in groups for r in g.runs[:1] if any(np.isnan(read(r)) for _, read, _ in AXES)]
        note = "line: Pareto front; bars: ± one standard deviation over seeds"
        note += f"; times on several devices: {', '.join(devices)}" if len(devices) > 1 else ""
        note += plain(f"\nno costs recorded, not drawn: {', '.join(bare)}") if bare else ""
        legend(figure, note + no_value(groups, [level], figure, "without ACC and not drawn:"))
        info = groups[0].record
        dataset = groups[0].dataset_title
        title = f"{dataset}, {protocol_title(groups[0].protocol, groups, published)}: quality against cost"
        head(figure, title, info.dataset.synthetic)
    return figure


def latency_figure(
    groups: Sequence[Group], published: Published, level: str, look: Look | None = None
) -> Figure:
    """ACC against milliseconds per image, for groups with measured latency (``iufbench bench --latency``)."""
    with style_context():
        figure = new_figure(4.6, 3.6)
        axes = figure.subplots()
        _cost_panel(axes, groups, look or styles(groups), level, per_image("median"), 1.0)
        axes.set_xlabel("one image after the last experience (ms, median)")
        axes.set_ylabel(f"ACC, {level} AUROC (%)")
        axes.grid()
        legend(figure, f"line: Pareto front; {'; '.join(timed_on(groups))}")
        title = f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}: latency"
        head(figure, title, groups[0].record.dataset.synthetic)
    return figure


def _cost_panel(
    axes: Axes, groups: Sequence[Group], look: Look, level: str, read: Callable, scale: float
) -> None:
    costs_shown: list[float] = []
    comparable = []
    for group in groups:
        acc = 100 * group.values(level, "auroc", "acc")
        costs = scale * np.array([read(run) for run in group.runs])
        if not len(acc) or np.isnan(acc).any() or np.isnan(costs).any():
            continue
        style = look[group.strategy]
        several = sum(g.strategy == group.strategy for g in groups) > 1
        label = group.title + (f" [{group.preset} {group.recipe_hash}]" if several else "")
        x, y = costs.mean(), acc.mean()
        bars = {"xerr": costs.std(ddof=1), "yerr": acc.std(ddof=1)} if len(acc) > 1 else {}
        filled = style.colour if not several or group is _first(groups, group.strategy) else "white"
        axes.errorbar(
            x,
            y,
            **bars,
            color=style.colour,
            marker=style.marker,
            ms=7,
            mfc=filled,
            ls="none",
            label=plain(label),
            zorder=3,
        )
        costs_shown += [x, x + bars.get("xerr", 0.0)]
        if not group.joint:
            comparable.append((x, y))
    front, best = [], -np.inf
    for x, y in sorted(comparable, key=lambda p: (p[0], -p[1])):
        if y > best:
            front.append((x, y))
            best = y
    if len(front) > 1:
        axes.plot(*zip(*front), color="#999999", lw=1, ls="--", drawstyle="steps-post", zorder=1)
    _cost_scale(axes, costs_shown)
    axes.margins(y=0.12)


def _cost_scale(axes: Axes, costs: Sequence[float]) -> None:
    """Logarithmic if costs differ much; linear around zero, the cost of storing nothing."""
    positive = [x for x in costs if x > 0]
    if not positive:
        return
    low, high = min(positive), max(positive)
    if high <= 20 * low:
        axes.set_xlim(-0.04 * high if low < max(costs) else 0, 1.12 * high)
        return
    axes.set_xscale("symlog", linthresh=low)
    decades = 10.0 ** np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    ticks = [0.0, *decades] if min(costs) == 0 else list(decades)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(-0.2 * low if min(costs) == 0 else 0.8 * low, 1.6 * high)


def _first(groups: Sequence[Group], strategy: str) -> Group:
    return next(g for g in groups if g.strategy == strategy)
