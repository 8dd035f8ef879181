"""Progress of large files, and free disk space."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from iufbench.support.errors import InputError
from iufbench.support.progress import Progress

RESERVE = 256 << 20  # bytes left free on the disk


def readable(n: int) -> str:
    """A number of bytes in decimal units, as shown by file managers and download pages.

    >>> readable(5_264_982_680), readable(812)
    ('5.26 GB', '812 bytes')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n} bytes"


def free_space(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet, less the reserve."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return max(shutil.disk_usage(folder).free - RESERVE, 0)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise InputError with both numbers if ``needed`` bytes do not fit on the disk of ``folder``."""
    free = free_space(folder)
    if needed > free:
        raise InputError(
            f"{what} needs {readable(needed)} in {folder}, where {readable(free)} are available: "
            f"free some space or choose a folder on another disk"
        )


class ByteBar:
    """A progress bar on a terminal, a line per 10 % elsewhere, nothing if quiet.

    ``total``: bytes, None if unknown. ``done``: bytes that exist already.
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
