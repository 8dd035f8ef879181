"""False alarms of each object at its frozen threshold while further objects are learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iufbench.metrics.thresholds import read_rule
from iufbench.reporting.drift import calibrated, guaranteed
from iufbench.reporting.figures.drawing import (
    Look,
    head,
    legend,
    new_figure,
    plain,
    style_context,
    styles,
)
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.tables.results import protocol_title

MOST = 12  # panels
WIDE = 4  # panels in a row
PROMISE = "guaranteed at 95 % confidence"
NOMINAL = "nominal rate"


def can_drift(groups: Sequence[Group]) -> list[str]:
    """The objects that were learnt before the last experience of a run with thresholds."""
    found: dict[str, None] = {}
    for group in groups:
        if calibrated(group.runs[0]):
            for members in group.runs[0].experiences[:-1]:
                found |= dict.fromkeys(members)
    return list(found)


def alarm_figure(groups: Sequence[Group], published: Published, look: Look | None = None) -> Figure:
    """One panel an object, from the experience that introduced it: the share of its good test images above
    its frozen threshold, mean over seeds with a band of one standard deviation.

    Grey lines are the rate that the rule aims at and the one that the calibration images guarantee. Runs
    without thresholds are named, not drawn. At least one object must be one of ``can_drift``.
    """
    objects, look = can_drift(groups), look or styles(groups)
    shown = objects[:MOST]
    rows = -(-len(shown) // WIDE)
    columns = -(-len(shown) // rows)
    drawn = [g for g in groups if calibrated(g.runs[0])]
    with style_context():
        figure = new_figure(max(4.6, 0.7 + 2.1 * columns), 1.5 + 1.75 * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        for k, (axes, name) in enumerate(zip(grid.flat, shown)):
            _panel(axes, drawn, name, look)
            axes.set_title(plain(name.replace("_", " ")), loc="left")
            if k + columns >= len(shown):
                _name_experiences(axes, drawn[0])
        for axes in grid[:, 0]:
            axes.set_ylabel("false alarms (%)")
        legend(figure, _note(groups, objects))
        title = f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}"
        head(figure, f"{title}: false alarms at frozen thresholds", groups[0].runs[0].synthetic)
    return figure


def _panel(axes: Axes, groups: Sequence[Group], name: str, look: Look) -> None:
    promises, nominals = set(), set()
    for group in groups:
        if name not in group.runs[0].objects:
            continue
        matrices = [run.matrix("image", "false_alarm_frozen") for run in group.runs]
        column = matrices[0].objects.index(name)
        start = int(matrices[0].introduced[column])
        rates = 100 * np.array([m.values[start:, column] for m in matrices])
        steps = np.arange(start, start + rates.shape[1])
        style, mean = look[group.strategy], rates.mean(axis=0)
        axes.plot(
            steps,
            mean,
            color=style.colour,
            marker=style.marker,
            markersize=3.8,
            lw=1.4,
            alpha=0.9,
            label=plain(group.title),
            zorder=4,
        )
        if len(rates) > 1:
            sd = rates.std(axis=0, ddof=1)
            low, high = np.clip((mean - sd, mean + sd), 0, 100)
            axes.fill_between(steps, low, high, color=style.colour, alpha=0.15, lw=0, zorder=3)
        promises |= {guaranteed(run).get(name, np.nan) for run in group.runs}
        nominals.add(_nominal(group))
    for values, dash, label in ((promises, (0, (4, 2)), PROMISE), (nominals, (0, (1, 2)), NOMINAL)):
        for value in sorted(v for v in values if not np.isnan(v)):
            axes.axhline(100 * value, color="#666666", lw=1.0, ls=dash, label=label, zorder=2)
    axes.set_ylim(-4, 104)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.grid(axis="y")


def _nominal(group: Group) -> float:
    record = group.record.thresholds
    rate = None if record is None else read_rule(record.rule).nominal
    return np.nan if rate is None else rate


def _name_experiences(axes: Axes, group: Group) -> None:
    """The experiences by what arrives in them."""
    experiences = group.runs[0].experiences
    names = [f"{len(e)} objects" if len(e) > 1 else e[0].replace("_", " ") for e in experiences]
    ticks = [names[0], *(f"+ {name}" for name in names[1:])]
    axes.set_xticks(
        range(len(ticks)), [plain(t) for t in ticks], rotation=40, ha="right", rotation_mode="anchor"
    )
    axes.tick_params(axis="x", labelbottom=True)
    axes.margins(x=0.06)


def _note(groups: Sequence[Group], objects: Sequence[str]) -> str:
    parts = []
    if any(len(group.runs) > 1 for group in groups):
        parts.append("bands: ± one standard deviation over seeds")
    without = dict.fromkeys(g.title for g in groups if not calibrated(g.runs[0]))
    if without:
        parts.append(f"made without --threshold, not drawn: {', '.join(without)}")
    if len(objects) > MOST:
        parts.append(f"the first {MOST} of {len(objects)} objects")
    return "; ".join(parts)
