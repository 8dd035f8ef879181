"""Quality against the size of the memory: one line per strategy, one point per budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from iufbench.reporting.figures.drawing import (
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
from iufbench.reporting.tables.details import cost
from iufbench.reporting.tables.results import protocol_title

_KEPT = cost("costs", "bytes_kept")


def swept(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Strategies with at least two recipes that store different numbers of bytes, smallest first."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        if not group.joint and bytes_kept(group).min() > 0:
            found.setdefault(group.strategy, []).append(group)
    several = {name: sorted(g, key=lambda x: bytes_kept(x).mean()) for name, g in found.items()}
    return {name: g for name, g in several.items() if len({bytes_kept(x).mean() for x in g}) > 1}


def bytes_kept(group: Group) -> np.ndarray:
    """Bytes carried at the end of the stream, float64 [n], one value per seed."""
    return np.array([_KEPT(run) for run in group.runs], dtype=float)


def budget_figure(
    groups: Sequence[Group], published: Published, level: str, look: Look | None = None
) -> Figure:
    """AUROC after the last experience against stored bytes, both as means over seeds.

    ``groups``: of one data set and protocol, with at least one strategy with two budgets (``swept``).
    """
    with style_context():
        figure = new_figure(4.6, 3.4)
        axes = figure.subplots()
        look = look or styles(groups)
        for strategy, members in swept(groups).items():
            finals = [100 * g.values(level, "auroc", "acc_final") for g in members]
            x = [bytes_kept(g).mean() / 1e6 for g in members]
            style = look[strategy]
            deviations = [v.std(ddof=1) if len(v) > 1 else 0.0 for v in finals]
            means = [v.mean() for v in finals]
            axes.errorbar(
                x,
                means,
                yerr=deviations,
                color=style.colour,
                marker=style.marker,
                ms=5,
                label=plain(members[0].title),
            )
        axes.set_xscale("log")
        axes.set_xlabel("stored after the last experience (MB)")
        axes.set_ylabel(f"final {level} AUROC (%)")
        axes.grid()
        note = "one point per budget; bars: ± one standard deviation over seeds"
        legend(figure, note + no_value(groups, [level], figure, "without a value and not drawn:"))
        record = groups[0].record
        title = (
            f"{record.dataset.label}, {protocol_title(groups[0].protocol, groups, published)}: memory budgets"
        )
        head(figure, title, record.dataset.synthetic)
    return figure
