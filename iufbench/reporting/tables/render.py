"""Renders tables as Markdown, LaTeX (booktabs), CSV and HTML. All text from users is escaped."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable

from iufbench.reporting.html import fill
from iufbench.reporting.tables.table import Cell, Row, Table
from iufbench.support.errors import InputError

MINUS = "−"
SYNTHETIC = "SYNTHETIC DATA"


def cell_text(cell: Cell, spread: bool) -> str:
    """A cell as plain text: ``≈96.0``, ``95.8 ± 0.3 (5)``, ``+0.4``; empty for an empty cell."""
    if cell.value is None:
        return cell.text
    number = f"{cell.value:{'+' if cell.signed else ''}.{cell.decimals}f}"
    number = number.replace("-", MINUS)
    if float(number.replace(MINUS, "-")) == 0:
        number = number.lstrip(f"+{MINUS}")  # rounded to zero: no sign
    text = cell.sign + number
    if spread and cell.raw:
        text += f" ± {cell.sd:.{cell.decimals}f}" if cell.sd is not None else ""
        text += f" ({len(cell.raw)})"
    return text


def render(table: Table, fmt: str) -> str:
    """Render the table as ``md``, ``tex``, ``csv`` or ``html``. Raises InputError for another format."""
    if fmt not in FORMATS:
        raise InputError(f"unknown table format {fmt!r}: use one of {', '.join(FORMATS)}")
    return FORMATS[fmt](table)


def _title(table: Table) -> str:
    return f"{SYNTHETIC}: {table.title}" if table.synthetic else table.title


def _repeats(rows: tuple[Row, ...]) -> list[bool]:
    """Whether a row's first label repeats the one above."""
    return [k > 0 and row.labels[0] == rows[k - 1].labels[0] for k, row in enumerate(rows)]


# ---- Markdown --------------------------------------------------------------------------------------


_MD = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;", **{c: "\\" + c for c in "\\|*_`[]~"}})


def _md_escape(text: str) -> str:
    return " ".join(text.split()).translate(_MD)


def _markdown(table: Table) -> str:
    heads = [*table.label_columns]
    heads += [f"{c.group}: {c.title}" if c.group else c.title for c in table.columns]
    lines = [f"### {_md_escape(_title(table))}", ""]
    lines.append("| " + " | ".join(map(_md_escape, heads)) + " |")
    lines.append("|" + " --- |" * len(table.label_columns) + " ---: |" * len(table.columns))
    for row in table.rows:
        labels = [_md_escape(label) for label in row.labels]
        if row.note:
            labels[-1] += f" <sup>{row.note}</sup>"
        cells = []
        for cell in row.cells:
            text = _md_escape(cell_text(cell, table.spread))
            cells.append(f"**{text}**" if cell.best else text)
        lines.append("| " + " | ".join([*labels, *cells]) + " |")
    lines += ["", _md_escape(table.caption), *([""] if table.definitions else [])]
    lines += [f"- {_md_escape(title)}: {_md_escape(text)}" for title, text in table.definitions]
    for mark, text in table.footnotes:
        lines += ["", (f"<sup>{mark}</sup> " if mark else "") + _md_escape(text)]
    return "\n".join(lines) + "\n"


# ---- LaTeX -----------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "†": r"\dag{}",
    "Σ": r"$\Sigma$",
    "…": r"\ldots{}",
    "–": "--",
    "“": "``",
    "”": "''",
}


def _tex_escape(text: str) -> str:
    """Escape text for LaTeX; of characters unknown to pdflatex the code point is shown: never an error.

    >>> _tex_escape("50 % \u87ba")
    '50 \\\\% [U+87BA]'
    """
    return "".join(_tex_letter(c) for c in " ".join(text.split()))


def _tex_letter(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    known = character.isascii() or 0xC0 <= ord(character) <= 0xFF
    return character if known else f"[U+{ord(character):04X}]"


def _latex(table: Table) -> str:
    """A booktabs table, shrunk to the text width if it is wider."""
    labels, count = len(table.label_columns), len(table.columns)
    top, rules, column = [""] * labels, [], labels + 1
    for group, members in itertools.groupby(table.columns, key=lambda c: c.group):
        size = len(list(members))
        top.append(rf"\multicolumn{{{size}}}{{c}}{{{_tex_escape(group)}}}")
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + size - 1}}}")
        column += size
    words = " ".join(f"{title}: {text}." for title, text in table.definitions)
    caption = rf"\textbf{{{_tex_escape(_title(table))}.}} {_tex_escape(table.caption)}"
    caption += rf" {{\footnotesize {_tex_escape(words)}}}" if words else ""
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * labels}{'r' * count}}}",
        r"\toprule",
    ]
    if any(c.group for c in table.columns):
        lines += [" & ".join(top) + r" \\", " ".join(rules)]
    heads = [*table.label_columns, *(c.title for c in table.columns)]
    lines += [" & ".join(map(_tex_escape, heads)) + r" \\", r"\midrule"]
    for row, repeated in zip(table.rows, _repeats(table.rows)):
        names = [_tex_escape(label) for label in row.labels]
        if repeated:
            names[0] = ""
        if row.note:
            names[-1] += rf"\textsuperscript{{{row.note}}}"
        cells = []
        for cell in row.cells:
            text = _tex_escape(cell_text(cell, table.spread))
            cells.append(rf"\textbf{{{text}}}" if cell.best else text)
        lines.append(" & ".join([*names, *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    for mark, text in table.footnotes:
        lead = rf"\textsuperscript{{{mark}}} " if mark else ""
        lines.append(rf"\par{{\footnotesize\raggedright {lead}{_tex_escape(text)}\par}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


# ---- CSV -------------------------------------------------------------------------------------------


def _csv(table: Table) -> str:
    """One line per cell, full precision, every seed's value: for programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = [label.lower() for label in table.label_columns]
    head = ["group", "column", "kind", "value", "sd", "n", "sign", "best", "values", "note", "synthetic"]
    writer.writerow(["table", *labels, *head])
    notes = dict(table.footnotes)
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells):
            value: str | float | None = cell.value if cell.value is not None else cell.text
            raw = " ".join(map(repr, cell.raw))
            count = len(cell.raw) or ""
            line = [
                column.group,
                column.title,
                row.kind,
                value,
                cell.sd,
                count,
                cell.sign,
                int(cell.best),
                raw,
            ]
            note = notes.get(row.note, "") if row.note else ""
            writer.writerow([table.name, *row.labels, *line, note, int(table.synthetic)])
    return text.getvalue()


# ---- HTML ------------------------------------------------------------------------------------------


def _html(table: Table) -> str:
    """A ``<table>`` fragment with head, caption and footnotes."""
    found = itertools.groupby(table.columns, key=lambda c: c.group)
    groups = [(group, len(list(members))) for group, members in found]
    named = groups if any(group for group, _ in groups) else []
    return fill("table", table=table, title=_title(table), groups=named, cell_text=cell_text)


FORMATS: dict[str, Callable[[Table], str]] = {"md": _markdown, "tex": _latex, "csv": _csv, "html": _html}
