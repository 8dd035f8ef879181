"""The confusion matrix of routing: whose memory scored whose images."""

from __future__ import annotations

from matplotlib.figure import Figure

from iufbench.reporting.figures.drawing import head, new_figure, plain, style_context
from iufbench.reporting.figures.matrix import colour_scale
from iufbench.reporting.routing import confusion
from iufbench.reporting.store import Run


def routing_figure(run: Run) -> Figure:
    """Heat map after the last experience: rows are objects, columns the memories that scored their images."""
    objects, shares = confusion(run)
    count = len(objects)
    names = [plain(o.replace("_", " ")) for o in objects]
    with style_context():
        figure = new_figure(max(3.6, 1.9 + 0.42 * count), max(2.4, 1.5 + 0.3 * count))
        axes = figure.subplots()
        colours = colour_scale(0.0)
        axes.imshow(shares, cmap=colours.cmap, norm=colours.norm, aspect="auto")
        for i in range(count):
            for j in range(count):
                if shares[i, j] > 0:
                    colour = "white" if shares[i, j] < 0.5 else "black"
                    text = f"{100 * shares[i, j]:.0f}"
                    axes.text(j, i, text, ha="center", va="center", fontsize=6.8, color=colour)
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
        axes.set_xlabel("scored by the memory of")
        axes.set_ylabel("image of")
        axes.tick_params(length=0)
        bar = figure.colorbar(colours, ax=axes, pad=0.015, fraction=0.05, aspect=12)
        bar.ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f}")
        bar.set_label("share of images (%)")
        record = run.record
        title = f"{record.label}: routing, "
        title += record.dataset.label
        axes.set_title(plain(run.id), loc="left", fontsize=7, color="#444444")
        head(figure, title, run.synthetic)
    return figure
