"""VisA in its official layout, with the split of its one-class list.

    <object>/Data/Images/{Normal,Anomaly}/*.JPG
    <object>/Data/Masks/Anomaly/*.png
    split_csv/1cls.csv        object,split,label,image,mask

Only files in the list are used; other files in the folders are ignored.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from iufbench.data.readers.reading import (
    FileList,
    choose_objects,
    in_order,
    path_below,
    read_list,
    require_both_splits,
    require_root,
)
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

HEADER = ["object", "split", "label", "image", "mask"]
LIST = Path("split_csv") / "1cls.csv"


def read_visa(
    root: str | os.PathLike[str],
    name: str = "visa",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images in ``split_csv/1cls.csv`` (line endings LF or CRLF), in the order of objects,
    then training before test, then file path.

    ``objects``: exactly these are required and read, in this order; None takes all in the list,
    sorted by name. Defective images get ``defect="anomaly"``: the list has no defect types.

    Raises InputError (with file and line) for a missing list, a malformed line, paths that leave the
    root, an image listed twice, anomalies in training, an anomaly without mask if others of its object have
    one, files not on disk.
    """
    base = require_root(root, name)
    table = base / LIST
    if not table.is_file():
        raise InputError(
            f"{table} is missing: the VisA data root holds the object folders and split_csv/1cls.csv "
            f"(both are in the official archive; --synthetic uses generated images)"
        )
    rows = list(_rows(table))
    chosen = choose_objects((fields[0] for _, fields in rows), objects, table)
    files = FileList()
    wanted = set(chosen)
    masked = {fields[0] for _, fields in rows if fields[2] == "anomaly" and fields[4]} & wanted
    samples = [_sample(base, where, fields, files, masked) for where, fields in rows if fields[0] in wanted]
    require_both_splits(samples, chosen, str(table))
    files.require_all()
    without = [o for o in chosen if o not in masked]
    notes = (f"no mask in the list, so image metrics only: {', '.join(without)}",) if without else ()
    return DataSet(name, base, chosen, in_order(samples, chosen), bool(masked), synthetic, notes)


def _rows(table: Path) -> Iterator[tuple[str, list[str]]]:
    """("file, line n", fields) of every line after the header; blank lines are skipped."""
    reader = csv.reader(io.StringIO(read_list(table), newline=""), strict=True)
    try:
        header = next(reader, [])
        if header != HEADER:
            raise InputError(
                f"{table}, line 1: the header must be {','.join(HEADER)}, not {','.join(header)[:200]}"
            )
        for fields in reader:
            where = f"{table}, line {reader.line_num}"
            if len(fields) not in (0, len(HEADER)):
                raise InputError(f"{where}: {len(fields)} fields instead of {len(HEADER)}")
            if fields:
                yield where, fields
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num} cannot be read as a CSV table: {error}") from error


def _sample(base: Path, where: str, fields: list[str], files: FileList, masked: set[str]) -> Sample:
    object_name, split, label, image_text, mask_text = fields
    if split not in ("train", "test"):
        raise InputError(f"{where}: split is {split!r}, must be train or test")
    if label not in ("normal", "anomaly"):
        raise InputError(f"{where}: label is {label!r}, must be normal or anomaly")
    image = files.add(path_below(base, image_text, where), where)
    if label == "normal":
        if mask_text:
            raise InputError(f"{where}: a normal image cannot have a mask ({mask_text})")
        return Sample(image, object_name, "train" if split == "train" else "test", 0)
    if split == "train":
        raise InputError(
            f"{where}: an anomaly in the training split; the list must be the one-class split, 1cls.csv"
        )
    if object_name not in masked:
        return Sample(image, object_name, "test", 1, "anomaly")
    if not mask_text:
        raise InputError(f"{where}: test image {image_text} is an anomaly and has no mask, others have one")
    return Sample(
        image, object_name, "test", 1, "anomaly", files.add(path_below(base, mask_text, where), where)
    )
