"""Shared code of the list readers: validates the rows of a list and builds a data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from iufbench.data.readers.reading import (
    NORMAL,
    FileList,
    choose_objects,
    in_order,
    looks_normal,
    path_below,
    read_list,
    require_both_splits,
    unique_keys,
)
from iufbench.data.samples import SPLITS, DataSet, Sample, Split
from iufbench.support.errors import InputError


@dataclass(frozen=True)
class Row:
    """One entry of a list. ``where`` (file and line or key) is for messages; ``image`` and ``mask`` are
    relative to ``folder``, which is relative to the data root. ``unseen``: see ``Sample``."""

    where: str
    object: str
    split: str
    label: int
    image: str
    mask: str = ""
    defect: str = "defective"
    folder: str = ""
    part: str = ""
    condition: str = ""
    unseen: bool = False


def dataset_of(
    rows: Sequence[Row],
    root: Path,
    source: Path,
    name: str,
    objects: Sequence[str] | None,
    known: Iterable[str] | None = None,
) -> DataSet:
    """The data set of ``rows`` below ``root``, in the order of objects, then split, then file path.

    ``known``: all objects in the list's own order; None means those of the rows, sorted by name. Defective
    training images keep their label and are not trained on.

    Raises InputError (with ``where``) for an invalid split, a normal image with a mask, a defective test
    image without a mask when others of the object have one, paths that leave the root, an image listed
    twice, files not on disk, an object without training or test images.
    """
    found = list(dict.fromkeys(row.object for row in rows)) if known is None else list(known)
    chosen = choose_objects(found, tuple(found) if objects is None and known is not None else objects, source)
    wanted = [row for row in rows if row.object in set(chosen)]
    masked = {row.object for row in wanted if row.mask and row.split == "test"}
    files = FileList()
    samples = [_sample(root, row, row.object in masked, files) for row in wanted]
    require_both_splits(samples, chosen, str(source))
    files.require_all()
    return DataSet(name, root, chosen, in_order(samples, chosen), bool(masked))


BAD = frozenset({"bad", "defect", "defective", "anomaly", "anomalous", "abnormal", "faulty", "ng", "nok"})


def require_consistent(label: int, name: str, where: str) -> None:
    """Raise InputError if the kind of a defective image (``label`` 1) is called good, or vice versa."""
    if (name in NORMAL or looks_normal(name)) if label else name.lower() in BAD:
        kind = "defective" if label else "normal"
        raise InputError(f"{where}: the image is {kind} by its label ({label}), but called {name[:60]!r}")


def _sample(root: Path, row: Row, has_masks: bool, files: FileList) -> Sample:
    where = row.where
    if row.split not in SPLITS:
        raise InputError(f"{where}: split is {row.split!r}, must be one of {', '.join(SPLITS)}")
    if row.label == 0 and row.mask:
        raise InputError(f"{where}: a normal image cannot have a mask ({row.mask})")
    if row.label and row.split == "test" and has_masks and not row.mask and not row.unseen:
        raise InputError(f"{where}: defective test image {row.image} has no mask, although others have one")
    folder = path_below(root, row.folder, where) if row.folder else root
    image = files.add(path_below(folder, row.image, where), where)
    mask = files.add(path_below(folder, row.mask, where), where) if row.mask else None
    return Sample(
        image=image,
        object=row.object,
        split=cast(Split, row.split),
        label=row.label,
        defect=row.defect if row.label else "good",
        mask=mask,
        part=row.part,
        condition=row.condition,
        unseen=row.unseen,
    )


def read_json_file(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError naming file and line for anything else and for duplicate keys."""
    try:
        content = json.loads(read_list(path), object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"list {path} cannot be read: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object, not {type(content).__name__}")
    return content


def text_of(entry: dict[str, Any], key: str, where: str, required: bool = True) -> str:
    """A text field of an entry; "" if it is absent or null and not required."""
    value = entry.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
        raise InputError(f"{where}: {key} is {shown}, must be text")
    return value
