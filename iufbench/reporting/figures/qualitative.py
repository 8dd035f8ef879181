"""Figure 3: anomaly maps of the strategies on one image of an object, along the stream."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from iufbench.reporting.examples import RULE, Example, Line, make_example, run_with_maps
from iufbench.reporting.figures.drawing import head, new_figure, plain, style_context
from iufbench.reporting.figures.matrix import step_label
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.maps import MAPS, how_to_keep
from iufbench.reporting.tables.results import protocol_title
from iufbench.support.errors import InputError
from iufbench.support.fields import suggest

PANEL = 1.3  # inches
BOX = (0, 1, 1, 0)


def caption(example: Example) -> str:
    """What the figure shows, and the rule by which its image was selected."""
    several = len(example.lines) > 1
    parts = [
        f"Image {example.image}: {RULE}" + (" (ranks averaged over the strategies)." if several else "."),
        "Below each map: image score and threshold (best F1 on the object's test images at that time), "
        "whether the score reaches it, and the object's image AUROC in percent.",
        "Colours, the same in all panels: 0 is the median pixel of normal test images, 1 the threshold, both "
        "right after the object was learnt.",
        "Line: annotated defect." if example.mask is not None else "Without pixel annotation.",
        "Runs: " + ", ".join(line.run.id for line in example.lines) + ".",
    ]
    return " ".join(parts)


def qualitative_figure(example: Example, published: Published) -> Figure:
    """One row per strategy, one column per experience; image and annotated defect on the left."""
    lines = example.lines
    streams = [line for line in lines if not line.group.joint] or list(lines)
    steps = sorted({panel.experience for line in streams for panel in line.panels})
    lead = 2 if len(lines) == 1 else 1
    columns = lead + len(steps)
    width = 0.55 + (PANEL + 0.08) * columns + 0.6
    text = textwrap.wrap(caption(example), int(width * 19))
    foot = 0.1 + 0.125 * len(text)
    height = 0.75 + len(lines) * (PANEL + 0.42) + foot
    with style_context():
        figure = new_figure(width, height)
        grid = figure.subplots(len(lines), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        _pictures(grid, example, lead)
        peaks = [np.percentile(p.map, 99.8) for line in lines for p in line.panels]
        highest = max(1.5, float(np.percentile(peaks, 90)))  # an outlier must not darken the other panels
        scale = ScalarMappable(Normalize(0, highest), "cividis")
        for row, line in zip(grid[:, lead:], lines):
            _row(row, line, steps, scale, example.mask)
            row[0].set_ylabel(_name(line, lines), fontsize=8.5)
        for axes, t in zip(grid[0, lead:], steps):
            axes.set_title(_after(streams, t), fontsize=7.5)
        bar = figure.colorbar(scale, cax=grid[0, -1].inset_axes((1.07, 0, 0.06, 1)))
        above = _ticks(highest)
        bar.set_ticks([0, 1, *above], labels=["0: normal", "1: threshold", *map(str, above)])
        figure.text(
            0.1 / width, 0.05 / height, plain("\n".join(text)), fontsize=6.5, color="#444444", va="bottom"
        )
        title = f"{_place(lines[0].group, published)}: {example.object.replace('_', ' ')}"
        head(figure, title, lines[0].run.synthetic, foot)
    return figure


def _place(group: Group, published: Published) -> str:
    dataset = group.record.dataset
    title = protocol_title(group.protocol, [group], published)
    return f"{dataset.label}, {title}"


def _ticks(highest: float) -> list[int]:
    """At most a few ticks, whole numbers above one."""
    step = max(1, int(np.ceil((highest - 1) / 4)))
    return list(range(1 + step, int(highest) + 1, step))


def _pictures(grid: np.ndarray, example: Example, lead: int) -> None:
    """The image and its annotated copy, side by side or stacked."""
    places = [grid[0, 0], grid[0, 1]] if lead == 2 else [grid[0, 0], grid[1, 0]]
    titles = ["test image", "annotated defect"] if example.mask is not None else ["test image"]
    for k, (axes, title) in enumerate(zip(places, titles)):
        axes.imshow(example.picture, extent=BOX)
        axes.set_title(title, fontsize=7.5)
        if k == 1:
            _outline(axes, example.mask, "#ff2d00")


def _outline(axes: Axes, mask: np.ndarray | None, colour: str) -> None:
    if mask is None or not mask.any():
        return
    size = len(mask)
    centres = (np.arange(-1, size + 1) + 0.5) / size  # a border closes the outline of a defect at the edge
    lines = axes.contour(
        centres, centres, np.pad(mask, 1).astype(float), [0.5], colors=colour, linewidths=0.7
    )
    lines.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)


def _row(
    row: np.ndarray, line: Line, steps: Sequence[int], scale: ScalarMappable, mask: np.ndarray | None
) -> None:
    for panel in line.panels:
        axes = row[-1] if line.group.joint else row[list(steps).index(panel.experience)]
        axes.imshow(panel.map, cmap=scale.cmap, norm=scale.norm, extent=BOX)
        _outline(axes, mask, "white")
        words = f"score {panel.score:.3g}, threshold {panel.threshold:.3g}\n"
        words += "found" if panel.found else "missed"
        if not np.isnan(panel.auroc):
            words += f"; AUROC {100 * panel.auroc:.1f}"
        axes.set_xlabel(words, fontsize=6.5, labelpad=2)
        if line.group.joint and len(steps) > 1:
            axes.set_title("all objects at once", fontsize=7.5)


def _name(line: Line, lines: Sequence[Line]) -> str:
    twice = sum(other.group.title == line.group.title for other in lines) > 1
    name = f"{line.group.title}\n{line.group.preset} {line.group.recipe_hash}" if twice else line.group.title
    return plain("\n".join(part for text in name.split("\n") for part in textwrap.wrap(text, 22)))


def _after(lines: Sequence[Line], t: int) -> str:
    return "after " + step_label(lines[0].run, t)


# ---- figures of a results folder ------------------------------------------------------------


class Wanted(NamedTuple):
    """One figure: the stem of its file, the object, the groups with saved maps, and those without."""

    stem: str
    object: str
    groups: list[Group]
    missing: list[Group]

    def title(self, published: Published) -> str:
        """Data set, protocol and object."""
        return f"{_place(self.groups[0], published)}: {self.object.replace('_', ' ')}"

    def figure(self, published: Published) -> Figure:
        """Draw the figure. Raises RunError or InputError if maps or images are missing or corrupted."""
        return qualitative_figure(make_example(self.groups, self.object), published)


def qualitative_figures(
    groups: Sequence[Group], objects: Sequence[str] | None = None, strategies: Sequence[str] | None = None
) -> list[Wanted]:
    """List the figures that saved maps allow: one per data set, protocol and object.

    Args:
        groups: Groups of runs.
        objects: Only these.
        strategies: Only these.

    Returns:
        The figures; empty without any maps.

    Raises:
        InputError: A name is unknown, or has no saved maps; the message gives the command that saves them.
    """
    _known(objects, [o for g in groups for o in g.runs[0].objects], "object")
    _known(strategies, [g.strategy for g in groups], "strategy")
    streams: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        if strategies is None or group.strategy in strategies:
            data = group.record.dataset
            streams.setdefault((data.name, group.protocol, data.fingerprint), []).append(group)
    found = []
    for (dataset, protocol, fingerprint), members in streams.items():
        twice = sum(key[:2] == (dataset, protocol) for key in streams) > 1
        stem = f"qualitative_{dataset}_{protocol}" + (f"_{fingerprint[:8]}" if twice else "")
        saved = [g for g in members if any((run.path / MAPS).is_dir() for run in g.runs)]
        for name in dict.fromkeys(o for g in members for o in g.runs[0].objects):
            ready = [g for g in saved if run_with_maps(g, name) is not None]
            if ready and (objects is None or name in objects):
                missing = [g for g in members if g not in ready]
                found.append(Wanted(f"{stem}_{name}", name, ready, missing))
    for name in objects or ():
        if name not in {w.object for w in found}:
            run = next(r for g in groups for r in g.runs if name in r.objects)
            raise InputError(f"no run has saved anomaly maps of {name}; {how_to_keep(run, [name])}")
    for name in strategies or ():
        if name not in {g.strategy for w in found for g in w.groups}:
            run = next(g.runs[0] for g in groups if g.strategy == name)
            raise InputError(f"no run of {name} has saved anomaly maps; {how_to_keep(run, objects or ())}")
    return found


def _known(names: Sequence[str] | None, known: Sequence[str], kind: str) -> None:
    for name in names or ():
        if name not in known:
            options = list(dict.fromkeys(known))
            hint = suggest(name, options) or f"; known are {', '.join(options)}"
            raise InputError(f"no {kind} '{name}' in these runs{hint}")
