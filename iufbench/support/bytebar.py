"""How far a file of gigabytes has come, and whether there is room for it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from iufbench.support.errors import InputError
from iufbench.support.progress import Progress

RESERVE = 256 << 20  # bytes left free for everybody else on the disk


def readable(n: int) -> str:
    """A number of bytes in decimal units, as file managers and download pages give it: ``5.26 GB``."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n} bytes"


def free_space(folder: Path) -> int:
    """Bytes that may still be written to the disk of ``folder``, which need not exist yet."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return max(shutil.disk_usage(folder).free - RESERVE, 0)


def require_space(folder: Path, needed: int, what: str) -> None:
    """InputError with both numbers when ``needed`` bytes do not fit on the disk of ``folder``."""
    free = free_space(folder)
    if needed > free:
        raise InputError(
            f"{what} needs {readable(needed)} in {folder}, where {readable(free)} can be used: "
            f"make room or name a folder on another disk"
        )


class ByteBar:
    """A bar on a terminal; elsewhere a line at every tenth of the way; nothing when quiet.

    ``total``: bytes, None when nobody knows. ``done``: bytes that are there from before.
    """

    def __init__(self, progress: Progress, label: str, total: int | None, done: int = 0) -> None:
        self._progress, self._label, self._total, self._done = progress, label, total, done
        self._tenths = self._tenth()
        live = progress.verbosity >= 0 and sys.stderr.isatty()
        self._tqdm = (
            tqdm(total=total, initial=done, desc=label, unit="B", unit_scale=True, dynamic_ncols=True)
            if live
            else None
        )

    def _tenth(self) -> int:
        return 10 * self._done // self._total if self._total else 0

    def advance(self, n: int) -> None:
        self._done += n
        if self._tqdm is not None:
            self._tqdm.update(n)
        elif self._total and self._tenth() > self._tenths:
            self._tenths = self._tenth()
            self._progress.say(f"{self._label}: {readable(self._done)} of {readable(self._total)}")

    def __enter__(self) -> ByteBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tqdm is not None:
            self._tqdm.close()
