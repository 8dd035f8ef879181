"""The CSV manifests of InCLAD-Bench and InCLAD-MD: one table over several data sets, in several orders.

    sample_id,source_dataset,category,category_order,split,image_relpath,mask_relpath,image_label,
    defect_type,ordering_name,...

An image lies at ``<root>/<source_dataset>/<image_relpath>``: the root has one folder (or a link to one) for
each source, in any case of letters; a table with a single source may also use the root itself.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from iufbench.data.readers.listing import Row, dataset_of
from iufbench.data.readers.reading import contents, read_list, require_root
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError

COLUMNS = (
    *("sample_id", "source_dataset", "category", "category_order", "split"),
    *("image_relpath", "mask_relpath", "image_label", "defect_type", "ordering_name"),
)
LABELS = {"0": 0, "1": 1, "normal": 0, "anomaly": 1}
Line = tuple[str, dict[str, str]]


def read_inclad_csv(
    root: str | os.PathLike[str], manifest: Path, name: str, objects: Sequence[str] | None = None
) -> DataSet:
    """All images of the table below ``root``, objects in the order of its first ``ordering_name``.

    A category is an object; where two sources share its name it is ``<source>.<category>``. Every
    ``ordering_name`` of the table becomes one of the data set's ``orders``; the rows of one sample must
    agree in all of them.

    Raises InputError, naming file and line, for missing columns, a ``sample_id`` that is repeated in an
    ordering or refers to two different images, an invalid label or split, a category with two places in
    one order, a source without a folder, and as ``listing.dataset_of`` does.
    """
    base = require_root(root, name)
    lines = list(_lines(manifest))
    names = _object_names(lines)
    orders = _orders(lines, names)
    folders = _folders(base, lines, manifest)
    rows: dict[str, Row] = {}
    seen: dict[tuple[str, str], str] = {}
    for where, fields in lines:
        identity = (fields["ordering_name"], fields["sample_id"])
        if identity in seen:
            raise InputError(
                f"{where}: sample_id {fields['sample_id']!r} is already used at {seen[identity]}; "
                "an id belongs to one image"
            )
        seen[identity] = where
        row = _row(where, fields, names, folders)
        first = rows.setdefault(fields["sample_id"], row)
        if replace(row, where=first.where) != first:
            raise InputError(f"{where}: sample_id {fields['sample_id']!r} is another image at {first.where}")
    known = next(iter(orders.values()))
    dataset = dataset_of(list(rows.values()), base, manifest, name, objects, known)
    return replace(dataset, orders=orders)


def _lines(manifest: Path) -> Iterator[Line]:
    reader = csv.DictReader(io.StringIO(read_list(manifest), newline=""), strict=True)
    try:
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{manifest}, line 1: the column {missing[0]} is missing (needed: {', '.join(COLUMNS)})"
            )
        empty = True
        for fields in reader:
            if None in fields or None in fields.values():
                raise InputError(f"{manifest}, line {reader.line_num}: wrong number of fields")
            empty = False
            yield f"{manifest}, line {reader.line_num}", fields
        if empty:
            raise InputError(f"{manifest} has no rows")
    except csv.Error as error:
        raise InputError(f"{manifest}, line {reader.line_num}: not a CSV table ({error})") from error


def _object_names(lines: Sequence[Line]) -> dict[tuple[str, str], str]:
    """(source, category) -> object name."""
    pairs = dict.fromkeys((f["source_dataset"], f["category"]) for _, f in lines)
    categories = [category for _, category in pairs]
    return {
        (source, category): category if categories.count(category) == 1 else f"{source}.{category}"
        for source, category in pairs
    }


def _orders(lines: Sequence[Line], names: dict[tuple[str, str], str]) -> dict[str, tuple[str, ...]]:
    places: dict[str, dict[str, int]] = {}
    for where, fields in lines:
        text = fields["category_order"]
        if not text.isdecimal():
            raise InputError(f"{where}: category_order is {text!r}, must be a whole number")
        of_order = places.setdefault(fields["ordering_name"], {})
        object_name = names[fields["source_dataset"], fields["category"]]
        if of_order.setdefault(object_name, int(text)) != int(text):
            raise InputError(
                f"{where}: category_order of {object_name} is {text}, before it was {of_order[object_name]}"
            )
    for order, of_order in places.items():
        if len(set(of_order.values())) < len(of_order):
            raise InputError(
                f"{lines[0][0].rpartition(',')[0]}: two objects share a place in order {order!r}"
            )
    return {order: tuple(sorted(p, key=p.__getitem__)) for order, p in places.items()}


def _folders(base: Path, lines: Sequence[Line], manifest: Path) -> dict[str, str]:
    """source_dataset -> its folder, relative to the root."""
    there = {folder.name.lower(): folder.name for folder in contents(base)[1]}
    sources = list(dict.fromkeys(fields["source_dataset"] for _, fields in lines))
    if len(sources) == 1 and sources[0].lower() not in there:
        return {sources[0]: ""}
    for source in sources:
        if source.lower() not in there:
            raise InputError(
                f"{manifest}: {base} has no folder {source!r}: put one (or a link) there for each of "
                f"{', '.join(sources)}"
            )
    places: dict[Path, str] = {}
    for source in sources:
        other = places.setdefault((base / there[source.lower()]).resolve(), source)
        if other != source:
            raise InputError(
                f"{manifest}: {other} and {source} are one folder: a data set cannot be mixed with itself"
            )
    return {source: there[source.lower()] for source in sources}


def _row(
    where: str, fields: dict[str, str], names: dict[tuple[str, str], str], folders: dict[str, str]
) -> Row:
    if fields["image_label"] not in LABELS:
        raise InputError(
            f"{where}: image_label is {fields['image_label']!r}, must be one of {', '.join(LABELS)}"
        )
    return Row(
        where=where,
        object=names[fields["source_dataset"], fields["category"]],
        split=fields["split"],
        label=LABELS[fields["image_label"]],
        image=fields["image_relpath"],
        mask=fields["mask_relpath"],
        defect=fields["defect_type"] or "defective",
        folder=folders[fields["source_dataset"]],
    )
