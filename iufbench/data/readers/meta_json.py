"""``meta.json`` lists as used by ADer and Continual-MEGA: one file for any number of data sets.

    {"train": {"bottle": [{"img_path": "bottle/train/good/000.png", "mask_path": "", "cls_name": "bottle",
                           "specie_name": "good", "anomaly": 0}, ...]}, "test": {...}}

Paths are relative to one root. Continual-MEGA's lists contain defective training images; they keep their
label and are not trained on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.listing import Row, dataset_of, read_json_file, require_consistent, text_of
from iufbench.data.readers.reading import require_root
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError


def read_meta_json(
    root: str | os.PathLike[str], manifest: Path, name: str, objects: Sequence[str] | None = None
) -> DataSet:
    """All images listed in ``manifest``, relative to ``root``; objects are its classes, sorted by name.

    The label is ``anomaly``, the defect type ``specie_name``. ``objects``: exactly these, in this order.
    Raises InputError, naming file, split, class and entry, for violations of the format and as
    ``listing.dataset_of`` does.
    """
    base = require_root(root, name)
    content = read_json_file(manifest)
    if unknown := sorted(set(content) - {"train", "test"}):
        raise InputError(f"{manifest}: unknown split {unknown[0]!r} (allowed: train, test)")
    rows = [
        _row(entry, split, object_name, f"{manifest}, {split}, {object_name}, entry {number}")
        for split, classes in content.items()
        for object_name, entries in _classes(classes, f"{manifest}, {split}").items()
        for number, entry in enumerate(entries, start=1)
    ]
    return dataset_of(rows, base, manifest, name, objects)


def _classes(classes: object, where: str) -> dict[str, list[object]]:
    if not isinstance(classes, dict) or not all(isinstance(entries, list) for entries in classes.values()):
        raise InputError(f"{where}: must map each class to a list of entries")
    return classes


def _row(entry: object, split: str, object_name: str, where: str) -> Row:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: must be a JSON object, not {type(entry).__name__}")
    label = entry.get("anomaly")
    if type(label) is not int or label not in (0, 1):
        raise InputError(f"{where}: anomaly is {label!r}, must be 0 (normal) or 1 (defective)")
    own = text_of(entry, "cls_name", where, required=False)
    if own and own != object_name:
        raise InputError(f"{where}: cls_name is {own!r}, but the entry is listed under {object_name!r}")
    kind = text_of(entry, "specie_name", where, required=False)
    require_consistent(label, kind, where)
    return Row(
        where=where,
        object=object_name,
        split=split,
        label=label,
        image=text_of(entry, "img_path", where),
        mask=text_of(entry, "mask_path", where, required=False),
        defect=kind or "defective",
    )
