"""Image files in the cache folder: the images of a drift, written once and read by every run.

A folder gets its final name when it is complete. Folders of another user, or that others can write to, are
compared with images computed from the data before they are used.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iufbench.data.cache.array_store import SAMPLE, CacheUnusable, own_folder, private
from iufbench.data.cache.entry import MANIFEST
from iufbench.support.errors import RunError
from iufbench.support.files import read_json, write_json
from iufbench.support.locks import locked
from iufbench.support.provenance import now

KIND = "streams"
Draw = Callable[[], np.ndarray]


def obtain_pictures(place: Path, root: Path, draws: Mapping[str, Draw]) -> None:
    """Write the images of a folder, unless they exist.

    Args:
        place: The folder, ``<cache>/streams/<name>``.
        root: The data set that they are computed from, for the manifest.
        draws: Path relative to ``place`` -> function that computes the image, uint8 [H, W] or [H, W, 3].

    Raises:
        RunError: Writing fails, a folder is a link or can be replaced by others, or others can write to it
            and its images differ.
        InputError: As raised by ``draws``.
    """
    try:
        place.parent.parent.mkdir(parents=True, exist_ok=True)
        own_folder(place.parent, 0o777)
        if not os.path.lexists(place):
            _write(place, root, draws)
        elif place.is_symlink() or not private([place, *place.rglob("*")]):
            _compare(place, draws)
    except CacheUnusable as error:
        raise RunError(f"{error}; set IUFBENCH_CACHE to a different folder") from error
    except OSError as error:
        raise RunError(f"cannot write {place}: {error.strerror or error}") from error


def _write(place: Path, root: Path, draws: Mapping[str, Draw]) -> None:
    """Write to a temporary folder, locked, that is renamed to ``place`` when it is complete."""
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    files = []
    try:
        with locked(temporary):
            for name, draw in draws.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw()).save(path, compress_level=1)
                path.chmod(0o644)
                files.append({"name": name, "rows": 1, "crc32": zlib.crc32(path.read_bytes())})
            for folder in (p for p in temporary.rglob("*") if p.is_dir()):
                folder.chmod(0o755)
            told = {"kind": KIND, "identity": {"root": str(root.resolve())}, "made": now()}
            write_json(temporary / MANIFEST, {**told, "rows": len(files), "files": files})
            temporary.chmod(0o755)
            try:
                os.rename(temporary, place)
            except OSError:
                if not place.is_dir():  # another run may have created it in the meantime
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compare(place: Path, draws: Mapping[str, Draw]) -> None:
    """Raise CacheUnusable unless randomly selected images match the data."""
    if place.is_symlink():
        raise CacheUnusable(f"the cache {place} is a symbolic link")
    for name in random.SystemRandom().sample(sorted(draws), min(SAMPLE, len(draws))):
        path = place / name
        if path.resolve() != place.resolve() / name or not _holds(path, draws[name]()):
            raise CacheUnusable(f"the cache {place} is not used: {name} differs from the data")


def _holds(path: Path, expected: np.ndarray) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.array_equal(np.asarray(image), expected)
    except (OSError, SyntaxError, ValueError):
        return False


def damaged_picture(place: Path) -> str:
    """The fault of a folder with a manifest, "" if there is none. Reads all files."""
    try:
        listed: Any = read_json(place / MANIFEST)["files"]
        for file in listed:
            path = place / file["name"]
            if not path.is_file() or zlib.crc32(path.read_bytes()) != file["crc32"]:
                return f"{file['name']} is {'corrupted' if path.is_file() else 'missing'}"
    except (RunError, KeyError, TypeError) as error:
        return f"its {MANIFEST} is corrupted ({error})"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    return ""
