"""Performance profiles: the fraction of objects and seeds on which a strategy exceeds a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from iufbench.metrics.aggregate import RESAMPLES, performance_profile, resampled
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
from iufbench.reporting.standings import final_values
from iufbench.reporting.tables.results import protocol_title

POINTS = 201
MARKS = 24  # points between two markers of a line
MOST_BANDS = 6  # lines with distinguishable bands


def profile_figure(
    groups: Sequence[Group], published: Published, level: str, look: Look | None = None
) -> Figure:
    """Fraction of objects and seeds above an AUROC after the last experience, one line per strategy.

    Bands are pointwise 95 % intervals over seeds (stratified bootstrap), for two or more seeds and few lines.
    ``groups``: of one data set and protocol.
    """
    ranked = [(g, v) for g, v in final_values(groups, level) if v is not None]
    ranked.sort(key=lambda pair: pair[1].mean(), reverse=True)
    low = min((float(v.min()) for _, v in ranked), default=0.0)
    bands = len(ranked) <= MOST_BANDS
    thresholds = np.linspace(max(0.0, low - 0.02), 1, POINTS)
    with style_context():
        figure = new_figure(5.6, 3.4)
        axes = figure.subplots()
        look = look or styles(groups)
        titles = [g.title for g, _ in ranked]
        for number, (group, values) in enumerate(ranked):
            style = look[group.strategy]
            several = titles.count(group.title) > 1
            label = group.title + (f" [{group.preset} {group.recipe_hash}]" if several else "")
            axes.plot(
                100 * thresholds,
                100 * performance_profile(values, thresholds),
                color=style.colour,
                marker=style.marker,
                markevery=(5 * number % MARKS, MARKS),
                ms=5,
                lw=1.2,
                drawstyle="steps-post",
                label=plain(label),
            )
            if bands and len(values) > 1:
                low_end, high_end = band(values, thresholds)
                axes.fill_between(
                    100 * thresholds, 100 * low_end, 100 * high_end, color=style.colour, alpha=0.12, lw=0
                )
        axes.set_xlabel(f"{level} AUROC after the last experience (%)")
        axes.set_ylabel("objects and seeds above it (%)")
        axes.set_ylim(-2, 102)
        axes.grid()
        note = "ordered by ACC-final" + (
            "; bands: 95 % over seeds" if bands and any(len(g.runs) > 1 for g in groups) else ""
        )
        legend(figure, note + no_value(groups, [level], figure, "without a value and not drawn:"))
        title = f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}"
        head(figure, f"{title}: performance profiles", groups[0].record.dataset.synthetic)
    return figure


def band(values: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % interval [K] of the profile of values [seeds, objects] (stratified bootstrap)."""
    samples = resampled(values, np.random.default_rng(0), RESAMPLES // 4).reshape(RESAMPLES // 4, -1)
    ordered = np.sort(samples, axis=1)
    above = np.stack([1 - np.searchsorted(row, thresholds, side="right") / len(row) for row in ordered])
    low, high = np.quantile(above, [0.025, 0.975], axis=0)
    return low, high
