"""Cache entries: contents and reading.

An entry is a folder ``<kind>/<name>`` with ``.npy`` files of ``FILE_ROWS`` rows each and ``manifest.json``,
which describes the entry and lists its complete files with their CRC-32. Opening an entry checks headers and
sizes; ``problem_of`` reads everything.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from iufbench.support.errors import RunError
from iufbench.support.files import read_json

FORMAT = 2
FILE_ROWS = 10_000  # an interrupted build loses at most one file
CHUNK = 64  # rows that are made, or read, at a time
MANIFEST = "manifest.json"


class Damaged(Exception):
    """An entry exists but is invalid."""


@dataclass(frozen=True)
class Spec:
    """The specification of an entry.

    ``kind``: images, guides or features; ``label``: a readable prefix of its name; ``identity``: what the
    entry represents; ``version``: the state of its source files (only the newest version of an identity is
    kept); ``shape`` and ``dtype``: of a single row out of ``rows``.
    """

    kind: str
    label: str
    identity: Mapping[str, Any]
    version: str
    rows: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def family(self) -> str:
        """The common prefix of the names of all versions."""
        text = json.dumps([self.identity, self.rows, self.shape, self.dtype], sort_keys=True)
        label = re.sub(r"[^\w.-]", "_", self.label)
        return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}-"

    @property
    def name(self) -> str:
        return f"{self.family}{self.version[:12]}"

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes

    def place(self, folder: Path) -> Path:
        """The path of the entry in the cache folder."""
        return folder / self.kind / self.name

    def described(self) -> dict[str, Any]:
        """The specification as plain values, for the manifest."""
        return {
            "format": FORMAT, "kind": self.kind, "label": self.label, "identity": dict(self.identity),
            "version": self.version, "rows": self.rows, "shape": list(self.shape), "dtype": self.dtype,
            "file_rows": FILE_ROWS,
        }  # fmt: skip


class Stored:
    """The rows of an entry, memory-mapped and read-only: ``stored[i]`` [*shape]."""

    def __init__(self, files: Sequence[np.ndarray]) -> None:
        self.files = files

    def __len__(self) -> int:
        return sum(map(len, self.files))

    def __getitem__(self, row: int) -> np.ndarray:
        return self.files[row // FILE_ROWS][row % FILE_ROWS]


def read_manifest(place: Path) -> dict[str, Any]:
    """Read the manifest of an entry. Raises Damaged."""
    try:
        manifest = read_json(place / MANIFEST)
    except RunError as error:
        raise Damaged(f"it is corrupted ({error})") from error
    if manifest.get("format") != FORMAT:
        maker = f"iufbench {manifest.get('iufbench')}, format {manifest.get('format')!r}"
        raise Damaged(f"it was made by another version ({maker}; this one has format {FORMAT})")
    return manifest


def complete_files(place: Path, spec: Spec) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The mapped files listed in the manifest, and the manifest; empty without one. Raises Damaged."""
    if not (place / MANIFEST).exists():
        return [], {}
    manifest = read_manifest(place)
    if any(manifest.get(name) != value for name, value in spec.described().items()):
        raise Damaged("its manifest does not match its name")
    return _mapped(place, manifest), manifest


def _mapped(place: Path, manifest: Mapping[str, Any]) -> list[np.ndarray]:
    """Map all listed files after checking header and size. Raises Damaged."""
    arrays = []
    try:
        shape, dtype = tuple(manifest["shape"]), np.dtype(manifest["dtype"])
        for number, listed in enumerate(manifest["files"]):
            name = f"{number:05d}.npy"
            rows = min(manifest["file_rows"], manifest["rows"] - number * manifest["file_rows"])
            if listed["name"] != name or listed["rows"] != rows or rows <= 0:
                raise Damaged(f"its {MANIFEST} is corrupted (file {number})")
            if not stat.S_ISREG((place / name).lstat().st_mode):
                raise Damaged(f"{name} is not a plain file")
            array = npy.open_memmap(place / name, mode="r")
            if array.shape != (rows, *shape) or array.dtype != dtype or not array.flags.c_contiguous:
                raise Damaged(f"{name} holds {array.dtype} {array.shape}, not {dtype} {(rows, *shape)}")
            size, wanted = (place / name).stat().st_size, array.offset + array.nbytes
            if size != wanted:
                raise Damaged(f"{name} has {size} bytes instead of {wanted}")
            arrays.append(np.asarray(array))
    except FileNotFoundError as error:
        raise Damaged(f"{Path(str(error.filename)).name} is missing") from error
    except (KeyError, TypeError, ValueError) as error:  # open_memmap: a corrupted header, a file cut short
        raise Damaged(f"it is corrupted ({type(error).__name__}: {error})") from error
    return arrays


def problem_of(place: Path) -> str:
    """What is wrong with the complete files of an entry, "" if nothing. Reads all of them."""
    try:
        manifest = read_manifest(place)
        for array, listed in zip(_mapped(place, manifest), manifest["files"]):
            if _checksum(array) != listed["crc32"]:
                raise Damaged(f"the content of {listed['name']} is corrupted")
    except Damaged as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    return ""


def _checksum(array: np.ndarray) -> int:
    """CRC-32 of the values, read in chunks."""
    checksum = 0
    for start in range(0, len(array), CHUNK):
        checksum = zlib.crc32(array[start : start + CHUNK].data, checksum)
    return checksum
