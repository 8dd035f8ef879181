"""ELPV: real electroluminescence images of solar cells, which come as a Python package.

2,624 grey images of 300x300 pixels from 44 modules (Deitsch et al., Solar Energy 185, 2019), each with a
defect probability (0, 1/3, 2/3, 1) and the kind of its module, which serves as the object:

    object   p=0   p=1/3   p=2/3   p=1
    mono     588   117     56      313
    poly     920   178     50      402

The data are CC BY-NC-SA 4.0 and have no pixel masks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.reading import FileList, choose_objects, path_below, require_root
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

OBJECTS = ("mono", "poly")
TRAIN, TEST_GOOD, TEST_DEFECTIVE = 200, 100, 100
SALT = "iufbench elpv split 1: "
INSTALL = 'pip install "iufbench[elpv]"'


def read_elpv(
    root: str | os.PathLike[str] | None = None, name: str = "elpv", objects: Sequence[str] | None = None
) -> DataSet:
    """The split of ELPV used here: per object 200 normal training images and 100 + 100 test images.

    Normal means probability 0, defective probability 1; the doubtful cells in between (1/3 and 2/3)
    are in neither split. The selection is the same on every machine: an object's cells are sorted by
    sha256(SALT + image name as in labels.csv); of the normal cells the first 200 are for training and
    the next 100 for testing, of the defective ones the first 100 for testing. The data do not
    identify the module of a cell, so cells of one module can be in both splits.

    ``root``: a folder with ``labels.csv`` and ``images/``; None takes the installed package
    ``elpv-dataset``. ``objects``: in this order; None means mono, poly. ``has_masks`` is False.

    Raises InputError if the package is not installed, for a malformed line of labels.csv, for files
    not on disk and for too few cells.
    """
    base = _package_data() if root is None else require_root(root, name)
    table = base / "labels.csv"
    files = FileList()
    cells: dict[tuple[str, int], list[tuple[str, Path]]] = {}
    for where, image_text, label, kind in _rows(table):
        image = files.add(path_below(base, image_text, where), where)
        cells.setdefault((kind, label), []).append((image_text, image))
    files.require_all()
    chosen = choose_objects(OBJECTS, objects, table)
    samples: list[Sample] = []
    for object_name in chosen:
        normal = _take(cells.get((object_name, 0), []), TRAIN + TEST_GOOD, f"normal {object_name}", table)
        defective = _take(cells.get((object_name, 1), []), TEST_DEFECTIVE, f"defective {object_name}", table)
        samples += [Sample(image, object_name, "train", 0) for image in sorted(normal[:TRAIN])]
        samples += [Sample(image, object_name, "test", 0) for image in sorted(normal[TRAIN:])]
        samples += [Sample(image, object_name, "test", 1, "defective") for image in sorted(defective)]
    return DataSet(name, base, chosen, tuple(samples), has_masks=False)


def _package_data() -> Path:
    """The package's data folder, found without importing the package."""
    spec = importlib.util.find_spec("elpv_dataset")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "data" / "labels.csv").is_file():
            return Path(place) / "data"
    raise InputError(
        f"the ELPV images come with the Python package elpv-dataset, which is not installed: {INSTALL}"
    )


def _rows(table: Path) -> list[tuple[str, str, int, str]]:
    """("file, line n", image path, label, kind) of every cell with probability 0 or 1."""
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table} cannot be read: {error} (the images come with {INSTALL})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        where = f"{table}, line {number}"
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[2] not in OBJECTS:
            raise InputError(f"{where}: expected 'image probability mono|poly', not {line!r}")
        try:
            thirds = float(fields[1]) * 3
        except ValueError:
            thirds = -1.0
        if min(abs(thirds - k) for k in range(4)) > 1e-6:
            raise InputError(f"{where}: probability is {fields[1]!r}, must be 0, 1/3, 2/3 or 1")
        if round(thirds) in (0, 3):
            rows.append((where, fields[0], round(thirds) // 3, fields[2]))
    return rows


def _take(cells: list[tuple[str, Path]], count: int, what: str, table: Path) -> list[Path]:
    """The first ``count`` cells in the order of the salted hash of their names."""
    if len(cells) < count:
        raise InputError(
            f"{table} has {len(cells)} {what} cells, {count} are needed: reinstall with {INSTALL}"
        )
    ordered = sorted(cells, key=lambda cell: hashlib.sha256((SALT + cell[0]).encode()).hexdigest())
    return [image for _, image in ordered[:count]]
