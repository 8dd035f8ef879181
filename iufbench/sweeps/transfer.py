"""Run directories as bytes, for transfers between machines that share no folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from iufbench.cards.request import Request, command
from iufbench.reporting.record import INFO, record_from
from iufbench.reporting.rundir import METRICS, SCORES, TRAIN_LOG, claimed
from iufbench.support.files import json_text, write_bytes

MANIFEST = "checkpoints/manifest.json"
BASE_FILES = (METRICS, SCORES, TRAIN_LOG, "checkpoints/experience0.pt", MANIFEST, INFO)


class Changes:
    """Tracks which files of a run directory have changed since the last call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, int]] = {}

    def forget(self) -> None:
        """Consider the current files as known to the other side."""
        self._known = self._stamps()

    def take(self) -> dict[str, bytes]:
        """Relative name -> content of every new or changed file; temporary files are skipped."""
        now = self._stamps()
        changed = [name for name, stamp in now.items() if self._known.get(name) != stamp]
        self._known = now
        return {name: (self._folder / name).read_bytes() for name in changed}

    def _stamps(self) -> dict[str, tuple[int, int]]:
        files = (p for p in self._folder.rglob("*") if p.is_file() and not p.name.startswith("."))
        return {
            str(p.relative_to(self._folder)): (s.st_mtime_ns, s.st_size) for p in files for s in [p.stat()]
        }


def everything(folder: Path) -> dict[str, bytes]:
    """Relative name -> content of all files of a run directory; empty if it does not exist."""
    return Changes(folder).take()


def base_of(folder: Path) -> dict[str, bytes]:
    """The files of a run directory that ``adopt_base`` reads."""
    return {name: (folder / name).read_bytes() for name in BASE_FILES if (folder / name).is_file()}


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a run directory: checkpoints late, and last the manifest that verifies them.

    Checkpoints that the manifest does not list, because the run has continued since, are removed. Without
    files nothing is touched: nodes that write into a shared folder lock it themselves.

    Args:
        folder: The run directory, locked while it is written.
        files: Relative name -> content.

    Raises:
        RunError: Another process holds the directory.
    """
    if not files:
        return
    with claimed(folder):
        for name in sorted(files, key=lambda name: (name.startswith("checkpoints/"), name == MANIFEST, name)):
            write_bytes(folder / name, files[name])
        if MANIFEST in files:
            kept = json.loads(files[MANIFEST])["files"]
            for path in (folder / "checkpoints").glob("*.pt"):
                if path.name not in kept:
                    path.unlink()


def as_if_done_at_home(info: bytes, request: Request) -> bytes:
    """``run.json`` of a run in a temporary folder, with the results folder and command of its request."""
    record = record_from(json.loads(info), INFO)
    record.request, record.command = request.as_dict(), command(request)
    return (json_text(record.as_dict()) + "\n").encode("utf-8", "surrogateescape")
