"""What lies in the cache folder: listed, verified, removed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from iufbench.data.cache.array_store import DATA, ENTRY, LOCK, PART, problem_of, remove
from iufbench.support.errors import RunError
from iufbench.support.files import read_json

KINDS = ("images", "guides", "features")


def places(folder: Path) -> list[Path]:
    """Every entry below the cache folder, finished or not; nothing else that may lie there."""
    return sorted(p for kind in KINDS for p in folder.glob(f"{kind}/*") if (p / LOCK).is_file())


def entries(folder: Path) -> list[dict[str, Any]]:
    """``kind``, ``name``, ``rows``, ``bytes`` on disk, ``state`` (complete, unfinished, damaged), ``made``
    and the data set's ``root`` of every entry; unfinished ones have no rows yet. Data are not read."""
    return [_described(place) for place in places(folder)]


def _described(place: Path) -> dict[str, Any]:
    bytes_ = sum(p.stat().st_size for p in (place / DATA, place / ENTRY) if p.is_file())
    known: dict[str, Any] = {
        "kind": place.parent.name, "name": place.name, "rows": 0, "bytes": bytes_, "state": "unfinished",
        "made": "", "root": "",
    }  # fmt: skip
    if place.name.endswith(PART):
        return known
    try:
        entry = read_json(place / ENTRY)
        found = {"rows": entry["rows"], "made": entry["made"], "root": entry["identity"]["root"]}
    except (RunError, KeyError, TypeError):
        return {**known, "state": "damaged"}
    return {**known, **found, "state": "complete"}


def verify(folder: Path) -> list[tuple[Path, str]]:
    """Every finished entry that is damaged or of another version, and why. Reads all of them."""
    finished = [p for p in places(folder) if not p.name.endswith(PART)]
    return [(place, problem) for place in finished if (problem := problem_of(place))]


def clear(folder: Path) -> tuple[int, list[Path]]:
    """Remove all entries; the bytes freed, and those left because a process is making them.

    Raises RunError when something may not be removed.
    """
    freed, kept = 0, []
    for place in places(folder):
        size = _described(place)["bytes"]
        try:
            gone = remove(place)
        except OSError as error:
            raise RunError(f"cannot remove {place}: {error.strerror or error}") from error
        freed += size if gone else 0
        kept += [] if gone else [place]
    for kind in KINDS:
        with suppress(OSError):  # not there, or not empty
            (folder / kind).rmdir()
    return freed, kept
