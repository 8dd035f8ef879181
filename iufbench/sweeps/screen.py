"""Display of a sweep: a redrawn table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from iufbench.engine.describe import columns
from iufbench.support.errors import one_line, printable


class Screen:
    """Prints to ``out``. ``verbosity``: -1 nothing, 0 a line per finished run, 1 also one per started run."""

    def __init__(self, verbosity: int = 0, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self.verbosity = verbosity
        self.live = verbosity >= 0 and self._out.isatty()
        self._drawn = 0

    def say(self, text: str, level: int = 0) -> None:
        if self.verbosity >= level:
            self._clear()
            print(printable(text), file=self._out, flush=True)

    def draw(self, rows: Sequence[Mapping[str, str]], headline: str) -> None:
        """Replace the table shown last; it is limited to the height of the terminal."""
        size = shutil.get_terminal_size()
        room = max(size.lines - 3, 1)
        table = columns([dict(row) for row in rows[: room - 1]]).splitlines() if rows else []
        if len(rows) > room - 1:
            table.append(f"... and {len(rows) - room + 1} more")
        lines = [one_line(line)[: size.columns - 1] for line in [*table, headline]]
        self._clear()
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        self._drawn = 0

    def _clear(self) -> None:
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


def duration(seconds: float) -> str:
    """A duration as text.

    >>> [duration(s) for s in (42, 450, 11520, 1036800)]
    ['42 s', '7.5 min', '3.2 h', '12.0 d']
    """
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            value = seconds / divisor
            return f"{value:.0f} {unit}" if divisor == 1 or value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"
