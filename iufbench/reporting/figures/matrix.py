"""The matrix of one run: every object after every experience."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from iufbench.reporting.figures.drawing import head, new_figure, no_value, plain, style_context
from iufbench.reporting.groups import Group
from iufbench.reporting.store import Run

LOWEST = 0.5


def matrix_figure(run: Run, level: str, metric: str = "auroc") -> Figure:
    """Heat map of R in percent: rows are evaluations, columns objects and the mean over seen objects.

    The staircase separates seen from unseen objects. Cells without a value are hatched. Raises InputError if
    the run does not have the metric.
    """
    matrix = run.matrix(level, metric)
    values, seen = matrix.values, matrix.seen
    steps, count = values.shape
    means = [row[s].mean() for row, s in zip(values, seen)]
    filled = np.append(values, means)
    lowest = min(LOWEST, float(np.nanmin(filled))) if not np.isnan(filled).all() else LOWEST
    with style_context():
        figure = new_figure(max(4.2, 1.9 + 0.42 * (count + 1.6)), 1.55 + 0.3 * steps)
        axes = figure.subplots()
        axes.set_xlim(-0.5, count + 1)
        axes.set_ylim(steps - 0.5, -0.5)
        places = [(t, o, o, values[t, o], seen[t, o]) for t in range(steps) for o in range(count)]
        places += [(t, count, count + 0.5, means[t], True) for t in range(steps)]
        colours = colour_scale(lowest)
        for t, _, x, value, is_seen in places:
            if np.isnan(value):
                hatch = "////" if is_seen else None
                axes.add_patch(
                    Rectangle(
                        (x - 0.5, t - 0.5), 1, 1, facecolor="#f2f2f2", edgecolor="#bbbbbb", hatch=hatch, lw=0
                    )
                )
                continue
            colour = colours.to_rgba(value)
            axes.add_patch(Rectangle((x - 0.5, t - 0.5), 1, 1, facecolor=colour, edgecolor="white", lw=0.5))
            luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
            axes.text(
                x,
                t,
                f"{100 * value:.1f}",
                ha="center",
                va="center",
                fontsize=6.8,
                color="white" if luminance < 0.5 else "black",
                style="normal" if is_seen else "italic",
            )
        _staircase(axes, seen)
        axes.set_xticks(
            [*range(count), count + 0.5],
            [*(plain(o.replace("_", " ")) for o in matrix.objects), "mean of seen"],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
        )
        axes.set_yticks(range(steps), [step_label(run, t) for t in range(steps)])
        axes.set_ylabel("after experience")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(colours, ax=axes, pad=0.015, fraction=0.05, aspect=12)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f}")
        bar.set_label(f"{level} {METRIC_LABELS.get(metric, metric)} (%)")
        info = run.record
        title = f"{info.label}: "
        title += f"{info.protocol.label}, "
        title += info.dataset.label
        axes.set_title(plain(run.id), loc="left", fontsize=7, color="#444444")
        note = no_value([Group((run,))], [level], figure, "hatched: no value")
        if note:
            figure.supxlabel(plain(note.strip()), fontsize=7)
        head(figure, title, run.synthetic)
    return figure


METRIC_LABELS = {"auroc": "AUROC", "ap": "AP", "f1_max": "F1-max", "aupro_30": "AUPRO@0.3"}


def colour_scale(lowest: float):  # type: ignore[no-untyped-def]
    """Values in [lowest, 1] on cividis, which is perceptually uniform and safe for colour-blind readers."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(lowest, 1.0), "cividis")


def step_label(run: Run, t: int) -> str:
    """The label of an experience: ``1: base``, ``2: +pcb1``."""
    objects = run.experiences[t]
    if t == 0:
        return "1: base" if len(objects) > 1 else plain(f"1: {objects[0].replace('_', ' ')}")
    new = objects[0].replace("_", " ") if len(objects) == 1 else f"{len(objects)} objects"
    return plain(f"{t + 1}: +{new}")


def _staircase(axes, seen: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """The line between seen and unseen objects."""
    edges = seen.sum(axis=1) - 0.5
    xs, ys = [], []
    for t, edge in enumerate(edges):
        xs += [edge, edge]
        ys += [t - 0.5, t + 0.5]
    if edges[0] < seen.shape[1] - 0.5:
        axes.plot(xs, ys, color="black", lw=1.6, solid_capstyle="butt")
