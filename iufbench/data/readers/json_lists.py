"""File lists as used by UniAD (NeurIPS 2022) and IUF (ECCV 2024): one JSON object per line.

    {"filename": "bottle/test/crack/000.png", "label": 1, "label_name": "defective",
     "maskname": "bottle/ground_truth/crack/000_mask.png", "clsname": "bottle"}

One list for training, one for testing. ``maskname`` is absent for normal images; ``label_name`` and
``clsname`` may be absent: then the object is the fourth last part of ``filename``, as in UniAD.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from iufbench.data.readers.listing import require_consistent
from iufbench.data.readers.reading import (
    FileList,
    choose_objects,
    in_order,
    path_below,
    read_list,
    require_both_splits,
    require_root,
    unique_keys,
)
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

KEYS = ("filename", "label", "label_name", "maskname", "clsname")  # others are ignored
Line = tuple[str, dict[str, Any]]


def read_json_lists(
    root: str | os.PathLike[str],
    train_list: str | os.PathLike[str],
    test_list: str | os.PathLike[str],
    name: str,
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images that the two lists name below ``root``, in the order of objects, then training
    before test, then file path.

    ``objects``: exactly these are required and read, in this order; None takes all in the lists,
    sorted by name. Masks are all or nothing in each object: one without any ``maskname`` in the test list
    has no pixel annotation. (The reference code treats an image without a mask as entirely
    defective; that would be a wrong ground truth, so here it is an error.)

    Raises InputError (with file and line) for lists that are missing or malformed, paths that leave
    the root, an image listed twice, defective training images, a defective test image without a mask
    when others have one, files not on disk.
    """
    base = require_root(root, name)
    train, test = _lines(Path(train_list)), _lines(Path(test_list))
    files = FileList()
    found = [_object(where, fields) for where, fields in train + test]
    chosen = choose_objects(found, objects, Path(test_list))
    wanted = set(chosen)
    masked = {o for o, (_, fields) in zip(found[len(train) :], test) if fields.get("maskname")} & wanted
    samples = []
    for place, (where, fields) in enumerate(train + test):
        if found[place] in wanted:
            split: Literal["train", "test"] = "train" if place < len(train) else "test"
            needs_mask = split == "test" and found[place] in masked
            samples.append(_sample(base, split, where, fields, found[place], needs_mask, files))
    require_both_splits(samples, chosen, f"{train_list} and {test_list}")
    files.require_all()
    without = [o for o in chosen if o not in masked]
    notes = (f"no maskname, so image metrics only: {', '.join(without)}",) if without and masked else ()
    return DataSet(name, base, chosen, in_order(samples, chosen), bool(masked), synthetic, notes)


def _lines(path: Path) -> list[Line]:
    """("file, line n", fields) of every line that is not blank."""
    lines: list[Line] = []
    for number, line in enumerate(read_list(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not a JSON object ({str(error)[:100]})") from error
        if not isinstance(fields, dict):
            raise InputError(
                f"{where}: not a JSON object but {type(fields).__name__}; one object per line is expected"
            )
        for key in sorted(set(fields) - set(KEYS)):
            if near := difflib.get_close_matches(key, KEYS, 1, 0.8):
                raise InputError(f"{where}: unknown key {key[:60]!r}; did you mean {near[0]!r}?")
        lines.append((where, fields))
    if not lines:
        raise InputError(f"list {path} is empty")
    return lines


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(where: str, fields: dict[str, Any], key: str) -> str:
    """A text field; "" if it is absent or null."""
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {key} is {_shown(value)}, must be text")
    return value or ""


def _object(where: str, fields: dict[str, Any]) -> str:
    parts = PurePosixPath(_text(where, fields, "filename")).parts
    name = _text(where, fields, "clsname") or (parts[-4] if len(parts) >= 4 else "")
    if not name:
        raise InputError(f"{where}: clsname is missing and filename does not contain the object")
    return name


def _sample(
    base: Path,
    split: Literal["train", "test"],
    where: str,
    fields: dict[str, Any],
    object_name: str,
    needs_mask: bool,
    files: FileList,
) -> Sample:
    label = fields.get("label")
    if type(label) is not int or label not in (0, 1):
        raise InputError(f"{where}: label is {_shown(label)}, must be 0 (normal) or 1 (defective)")
    kind = _text(where, fields, "label_name")
    require_consistent(label, kind, where)
    image = files.add(path_below(base, _text(where, fields, "filename"), where), where)
    mask_text = _text(where, fields, "maskname")
    if label == 0 and mask_text:
        raise InputError(f"{where}: a normal image (label 0) cannot have a mask ({_shown(mask_text)})")
    if label == 0:
        return Sample(image, object_name, split, 0)
    if split == "train":
        raise InputError(f"{where}: a defective image in the training list; training images must be normal")
    if needs_mask and not mask_text:
        raise InputError(
            f"{where}: defective image without maskname, although other lines of this object have one"
        )
    mask = files.add(path_below(base, mask_text, where), where) if mask_text else None
    return Sample(image, object_name, split, 1, kind or "defective", mask)
