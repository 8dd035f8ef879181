"""Run directories as bytes, to go from one machine to another where no folder is shared."""

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
    """What has changed in a run directory since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[int, int]] = {}

    def forget(self) -> None:
        """Take what is there now as known on the other side."""
        self._known = self._stamps()

    def take(self) -> dict[str, bytes]:
        """Relative name -> content of every new or changed file; temporary files are left out."""
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
    """Relative name -> content of all files of a run directory; empty when there is none."""
    return Changes(folder).take()


def base_of(folder: Path) -> dict[str, bytes]:
    """What ``adopt_base`` reads of a run directory."""
    return {name: (folder / name).read_bytes() for name in BASE_FILES if (folder / name).is_file()}


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a run directory, checkpoints last, and the manifest that verifies them last of all.

    Checkpoints that it does not name, because the run has continued since, are removed. The directory is
    claimed meanwhile, as by every other writer: RunError when another process holds it. Without files nothing
    is touched: where nodes write into a shared folder, they hold it themselves.
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
    """``run.json`` of a run in a scratch folder, with the results folder and command it was asked with."""
    record = record_from(json.loads(info), INFO)
    record.request, record.command = request.as_dict(), command(request)
    return (json_text(record.as_dict()) + "\n").encode("utf-8", "surrogateescape")
