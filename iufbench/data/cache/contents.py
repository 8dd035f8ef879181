"""Listing, verifying and removing the contents of the cache folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from iufbench.data.cache import pictures
from iufbench.data.cache.array_store import MANIFEST, problem_of, remove
from iufbench.support.errors import RunError
from iufbench.support.files import read_json
from iufbench.support.locks import NAME as LOCK

KINDS = ("images", "guides", "features", pictures.KIND)


def places(folder: Path) -> list[Path]:
    """All entries in the cache folder, finished or not; other files are ignored."""
    found = (p for kind in KINDS for p in folder.glob(f"{kind}/*") if not p.is_symlink())
    return sorted(p for p in found if (p / LOCK).is_file() or (p / MANIFEST).is_file())


def entries(folder: Path) -> list[dict[str, Any]]:
    """``kind``, ``name``, ``rows`` and ``bytes`` on disk, ``state`` (complete, unfinished, corrupted),
    ``made`` and the data set's ``root`` of every entry. Data are not read."""
    return [_described(place) for place in places(folder)]


def _described(place: Path) -> dict[str, Any]:
    size = sum(p.stat().st_size for p in place.rglob("*") if p.is_file() and p.name != LOCK)
    known: dict[str, Any] = {
        "kind": place.parent.name, "name": place.name, "rows": 0, "bytes": size, "state": "unfinished",
        "made": "", "root": "",
    }  # fmt: skip
    if not (place / MANIFEST).is_file():
        return known
    try:
        manifest = read_json(place / MANIFEST)
        rows = sum(int(file["rows"]) for file in manifest["files"])
        found = {"rows": rows, "made": manifest["made"], "root": manifest["identity"]["root"]}
        state = "complete" if rows == manifest["rows"] else "unfinished"
    except (RunError, KeyError, TypeError, ValueError):
        return {**known, "state": "corrupted"}
    return {**known, **found, "state": state}


def verify(folder: Path) -> list[tuple[Path, str]]:
    """All entries that are corrupted or of another version, and why. Reads all complete files."""
    begun = [p for p in places(folder) if (p / MANIFEST).is_file()]
    return [(place, problem) for place in begun if (problem := _problem(place))]


def _problem(place: Path) -> str:
    return pictures.damaged_picture(place) if place.parent.name == pictures.KIND else problem_of(place)


def clear(folder: Path) -> tuple[int, list[Path]]:
    """Remove all entries; returns the bytes freed, and the entries kept because a process is building them.

    Raises RunError if something cannot be removed.
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
