"""Style and output of figures: readable in print, in greyscale and with colour-vision deficiency."""

from __future__ import annotations

import io
import logging
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from iufbench.cards.strategies import FAMILIES
from iufbench.reporting.groups import Group, installed_families
from iufbench.reporting.undefined import undefined
from iufbench.support.files import write_bytes

# A colour for each family, after Okabe and Ito, without yellow, which is too light for lines on white, and a
# paler one for families with more members than markers.
FAMILY_COLOURS = {
    "bounds": ("#000000", "#707070"),
    "networks": ("#56B4E9", "#9AD3F3"),
    "regularisers": ("#0072B2", "#6FA8CF"),
    "rehearsal": ("#009E73", "#66C5AA"),
    "memories": ("#CC79A7", "#E3B5CF"),
    "iuf": ("#D55E00", "#EBA571"),
    "other": ("#8C510A", "#C19A6B"),
}
MARKERS = "osD^vPX<>p*hd8H"
GREY = "#cccccc"
WARNING = "#D55E00"
DPI = 200
NOTE_LETTERS = 15  # of a note per inch
MOST_NOTES = 4  # undefined objects listed in a figure
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


# Fonts with Chinese, Japanese and Korean characters, used for characters that matplotlib's own font lacks.
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


# Many of them have a single weight, which matplotlib would report for every figure.
logging.getLogger("matplotlib.font_manager").addFilter(
    lambda record: "Failed to find font weight" not in record.getMessage()
)


class Style(NamedTuple):
    """The style of one strategy in all figures of a results folder."""

    colour: str
    marker: str


Look = Mapping[str, Style]


def styles(groups: Sequence[Group]) -> dict[str, Style]:
    """A colour and a marker for each strategy: the colour of its family and a marker that is unique in it.

    Installed strategies always have the same pair, whichever were run; others come after them in their
    family.
    """
    members: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name, family in installed_families().items():
        members[family].append(name)
    for group in groups:
        if all(group.strategy not in names for names in members.values()):
            members[group.family].append(group.strategy)
    found = {}
    for family, names in members.items():
        for i, name in enumerate(names):
            shade = i // len(MARKERS) % 2
            found[name] = Style(FAMILY_COLOURS[family][shade], MARKERS[i % len(MARKERS)])
    return found


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, size in inches, outside matplotlib's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """Escape text for matplotlib: a dollar sign would start a formula."""
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text


def style_context():  # type: ignore[no-untyped-def]
    """The settings under which every figure is built and saved."""
    settings: Any = {**STYLE, "font.family": _fonts()}
    return matplotlib.rc_context(settings)


@lru_cache(maxsize=1)
def _fonts() -> list[str]:
    """matplotlib's own font, then installed fonts with further characters."""
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]


def head(figure: Figure, title: str, synthetic: bool, foot: float = 0.0) -> None:
    """The title and, if the data are synthetic, a label in the picture itself: captions get lost.

    ``foot`` inches are left free at the bottom.
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
    """One legend below all panels, in as many columns as fit, with ``note``, wrapped, above it."""
    width = int(NOTE_LETTERS * figure.get_figwidth())
    note = "\n".join(textwrap.fill(line, width) for line in note.splitlines())
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if not entries:
        figure.supxlabel(plain(note), fontsize=7)
        return
    column = 0.5 + 0.065 * max(map(len, entries))
    columns = max(1, min(len(entries), int(figure.get_figwidth() / column)))
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + 0.165 * max(0, rows - 3))  # space not taken from the panels
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


def no_value(groups: Sequence[Group], levels: Sequence[str], figure: Figure, heading: str) -> str:
    """Lines for a note: ``heading``, then the AUROCs without a value in the runs of a figure, with reasons.

    "" if everything has a value. Lines are wrapped to the width of the figure.
    """
    runs = [run for group in groups for run in group.runs]
    lines = dict.fromkeys(line for level in levels for run in runs for line in undefined(run, level))
    if not lines:
        return ""
    shown = list(lines)[:MOST_NOTES]
    more = [f"and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    width = int(NOTE_LETTERS * figure.get_figwidth())
    return "\n".join(["", heading, *(textwrap.fill(line, width) for line in [*shown, *more])])


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.pdf`` atomically; the same figure gives the same bytes.

    The layout is computed once, for the first format.
    """
    paths = []
    for fmt in formats:
        paths.append(write_bytes(stem.with_name(f"{stem.name}.{fmt}"), drawn(figure, fmt)))
        figure.set_layout_engine("none")
    return paths


METADATA: Mapping[str, Mapping[str, None]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


def drawn(figure: Figure, fmt: str, dpi: int = DPI) -> bytes:
    """The figure as a PNG or PDF file; warns once if no known font has one of its characters."""
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
        "warning: no font that matplotlib knows has all characters of these names, so figures show boxes for "
        f"them: install one of {', '.join(WIDE_FONTS[:3])}, {WIDE_FONTS[5]}, ... (and delete fontlist-*.json "
        f"in {matplotlib.get_cachedir()}: otherwise matplotlib does not search for new fonts)",
        file=sys.stderr,
    )
