"""The content of a table, before it is rendered as Markdown, LaTeX, CSV or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Cell:
    """A number with its annotations, a text, or nothing.

    ``value`` is in the unit of its column; ``sd`` is the sample standard deviation over ``raw`` (one value
    per seed, None for a single one); ``sign`` marks how a published value was obtained.
    """

    value: float | None = None
    sd: float | None = None
    raw: tuple[float, ...] = ()
    sign: str = ""
    best: bool = False
    text: str = ""
    signed: bool = False
    decimals: int = 1


@dataclass(frozen=True)
class Column:
    """``group`` is the common heading of adjacent columns. ``higher_is_better`` None: no best value."""

    title: str
    group: str = ""
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Row:
    """``labels`` fill the table's label columns. ``kind`` is ``ours``, ``published`` or ``difference``.

    ``competes`` rows of one kind are compared for the best value; ``note`` points to a footnote.
    """

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    kind: str = "ours"
    competes: bool = True
    note: str = ""


@dataclass(frozen=True)
class Table:
    """``name`` is the file's stem. ``spread`` shows standard deviation and number of seeds in the cells.

    ``definitions`` (column title, definition) belong to the caption; ``footnotes`` are (mark or empty, text).
    """

    name: str
    title: str
    caption: str
    definitions: tuple[tuple[str, str], ...]
    label_columns: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    synthetic: bool = False
    spread: bool = True


def measured(values: Sequence[float] | np.ndarray, scale: float = 1.0, decimals: int = 1) -> Cell:
    """Mean and sample standard deviation over seeds; empty if any of the values is missing.

    A mean over the available seeds would be a different quantity.
    """
    numbers = np.asarray(values, dtype=float) * scale
    if len(numbers) == 0 or np.isnan(numbers).any():
        return Cell()
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
    return Cell(float(numbers.mean()), sd, tuple(map(float, numbers)), decimals=decimals)


def mark_best(
    columns: Sequence[Column], rows: Sequence[Row], by_first_label: bool = False
) -> tuple[Row, ...]:
    """Mark the best cells of columns in which at least two rows have a value.

    Rows are compared with rows of their kind and, with ``by_first_label``, only with those that have the same
    first label. Values that print alike tie, and all are marked.
    """
    contests: dict[tuple[str, str], list[int]] = {}
    for k, row in enumerate(rows):
        if row.competes and row.kind != "difference":
            contests.setdefault((row.kind, row.labels[0] if by_first_label else ""), []).append(k)
    marked = [list(row.cells) for row in rows]
    for members in contests.values():
        for i, column in enumerate(columns):
            cells = [(k, marked[k][i]) for k in members]
            values = {k: round(c.value, c.decimals) for k, c in cells if c.value is not None}
            if column.higher_is_better is None or len(values) < 2:
                continue
            best = max(values.values()) if column.higher_is_better else min(values.values())
            for k, value in values.items():
                if value == best:
                    marked[k][i] = replace(marked[k][i], best=True)
    return tuple(replace(row, cells=tuple(cells)) for row, cells in zip(rows, marked))


def footnote_marks(count: int) -> list[str]:
    """``a`` ... ``z``, then ``aa`` ..."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [(letters[i // 26 - 1] if i >= 26 else "") + letters[i % 26] for i in range(count)]
