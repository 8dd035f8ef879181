"""How figures look and how they are saved: readable in print, by colour-blind people, and in grey."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from iufbench.reporting.literature import Published
from iufbench.support.files import write_bytes

# Okabe and Ito's colours, without yellow, which is too light for lines on white. Methods of the paper
# take the first six in the order of its tables; everything else takes the rest.
PAPER_COLOURS = ("#000000", "#009E73", "#CC79A7", "#56B4E9", "#0072B2", "#D55E00")
OTHER_COLOURS = ("#E69F00", "#7F7F7F", "#8C510A", "#762A83", "#01665E", "#B2182B")
MARKERS = "osD^vPX<>p*h"
WARNING = "#D55E00"
DPI = 200
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "pdf.fonttype": 42,
}


# Fonts with Chinese, Japanese and Korean letters, asked for the letters that matplotlib's own font lacks.
WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
)


# Many of them have one weight only, which matplotlib would say at every figure.
logging.getLogger("matplotlib.font_manager").addFilter(
    lambda record: "Failed to find font weight" not in record.getMessage()
)


class Style(NamedTuple):
    """How one strategy is drawn in every figure of a results folder."""

    colour: str
    marker: str


Look = Mapping[str, Style]


def styles(strategies: Sequence[str], published: Published) -> dict[str, Style]:
    """A colour and a marker for each strategy: the paper's methods keep theirs, others follow.

    Figures that belong together are given one mapping, made of the strategies of all of them.
    """
    firsts = [m.strategies[0] for m in published.methods_of() if m.strategies]
    found = {name: Style(PAPER_COLOURS[i % 6], MARKERS[i]) for i, name in enumerate(firsts)}
    others = [name for name in dict.fromkeys(strategies) if name not in found]
    for i, name in enumerate(others):
        found[name] = Style(OTHER_COLOURS[i % len(OTHER_COLOURS)], MARKERS[(len(firsts) + i) % len(MARKERS)])
    return found


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that no global state of matplotlib knows about."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar sign would start a formula."""
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text


def style_context():  # type: ignore[no-untyped-def]
    """The settings under which every figure is built and saved."""
    settings: Any = {**STYLE, "font.family": _fonts()}
    return matplotlib.rc_context(settings)


@lru_cache(maxsize=1)
def _fonts() -> list[str]:
    """matplotlib's own font, then those installed that know the letters it does not."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]


def head(figure: Figure, title: str, synthetic: bool, foot: float = 0.0) -> None:
    """The title, and on the picture itself whether the data are synthetic: pictures lose their captions.

    ``foot`` inches are kept free at the bottom.
    """
    lines = [(title, "black")]
    if synthetic:
        lines.append(("SYNTHETIC DATA: not comparable with published values", WARNING))
    height = figure.get_figheight()
    for k, (text, colour) in enumerate(lines):
        y = 1 - (0.12 + 0.19 * k) / height
        figure.text(0.1 / figure.get_figwidth(), y, plain(text), color=colour, va="center", fontweight="bold")
    strip = (0.06 + 0.19 * len(lines)) / height
    figure.get_layout_engine().set(rect=(0, foot / height, 1, 1 - strip - foot / height))  # type: ignore[union-attr, call-arg]


def legend(figure: Figure, note: str = "") -> None:
    """One legend for all panels below them, in as many columns as fit; ``note`` stands above it."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if not entries:
        return
    width = 0.5 + 0.065 * max(map(len, entries))
    columns = max(1, min(len(entries), int(figure.get_figwidth() / width)))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=2.6,
        title=plain(note) or None,
        title_fontsize=7,
    )


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf`` atomically; the same figure gives the same bytes."""
    return [write_bytes(stem.with_name(f"{stem.name}.{fmt}"), drawn(figure, fmt)) for fmt in formats]


METADATA: Mapping[str, Mapping[str, None]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


def drawn(figure: Figure, fmt: str, dpi: int = DPI) -> bytes:
    """The figure as a PNG or PDF file; says once when no known font has a letter of it."""
    data = io.BytesIO()
    with style_context(), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        figure.savefig(data, format=fmt, dpi=dpi, metadata=dict(METADATA[fmt]))
    for warning in found:
        if "missing from font" in str(warning.message):
            _say_missing_letters()
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return data.getvalue()


@lru_cache(maxsize=1)
def _say_missing_letters() -> None:
    print(
        "warning: no font that matplotlib knows has all letters of these names, so figures show boxes for "
        f"them: install one of {', '.join(WIDE_FONTS[:3])}, {WIDE_FONTS[5]}, ... (and delete fontlist-*.json "
        f"in {matplotlib.get_cachedir()}: without that matplotlib does not look for new fonts)",
        file=sys.stderr,
    )
