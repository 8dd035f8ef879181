"""Real-IAD: five views of every part, and lists that define the training and test images.

    realiad_{256,512,1024,raw}/<object>/OK/S0001/<object>_0001_OK_C1_<time>.jpg
    realiad_{256,512,1024,raw}/<object>/NG/<defect>/S0001/<object>_0001_NG_<defect>_C1_<time>.jpg
    realiad_jsons/<lists>/<object>.json

``lists`` is ``realiad_jsons_sv`` (the top view only), ``realiad_jsons`` (all views) or
``realiad_jsons_fuiad_{0.0,0.1,0.2,0.4}`` (a fraction of the training parts is defective).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from iufbench.data.readers.listing import Row, dataset_of, read_json_file, text_of
from iufbench.data.readers.reading import choose_objects, contents, require_root
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError

VIEW = re.compile(r".*_(C[1-5])(?:_.*)?")
NOISE = re.compile(r"realiad_jsons_fuiad_(\d\.\d)")


def read_realiad(
    root: str | os.PathLike[str],
    name: str = "realiad",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
    lists: str = "realiad_jsons_sv",
    images: str = "",
) -> DataSet:
    """All images in the lists, in the order of objects, then training and test, then file path.

    The label is ``anomaly_class`` (``OK`` or a defect code) and does not depend on the mask: views of a
    defective part that do not show the defect have none (``unseen``). ``part`` is the part's folder,
    ``condition`` the view. ``images``: the folder with the images if there are several resolutions.
    Defective training images are an error, except in the ``fuiad`` lists, where they are intended.

    Raises InputError, naming the list and the entry, for violations of the format, an object without a
    list, no or several folders of images, and as ``listing.dataset_of`` does.
    """
    base = require_root(root, name)
    folder = base / "realiad_jsons" / lists
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: the lists come with Real-IAD, in realiad_jsons.zip")
    found = [file.stem for file in folder.glob("*.json") if not file.name.startswith(".")]
    chosen = choose_objects(found, objects, folder)
    noisy = NOISE.fullmatch(lists)
    place = images or _resolution(base, chosen[0])
    rows = [row for o in chosen for row in _rows(folder / f"{o}.json", o, place, noisy is not None)]
    dataset = dataset_of(rows, base, folder, name, chosen, chosen)
    notes = (f"training lists with noise level {noisy[1]}",) if noisy else ()
    return replace(dataset, synthetic=synthetic, noisy_training=noisy is not None, notes=notes)


def _resolution(base: Path, object_name: str) -> str:
    there = [
        f.name for f in contents(base)[1] if f.name.startswith("realiad_") and (f / object_name).is_dir()
    ]
    if len(there) != 1:
        raise InputError(
            f"{base} must have the images of one resolution, in realiad_256, _512, _1024 or _raw; it has "
            f"{', '.join(there) or 'none'} (several: a card with `options: {{images: realiad_512}}` chooses)"
        )
    return there[0]


def _rows(source: Path, object_name: str, images: str, noisy: bool) -> list[Row]:
    content = read_json_file(source)
    prefix = f"{images}/{object_name}"
    rows = []
    for split in ("train", "test"):
        entries = content.get(split)
        if not isinstance(entries, list):
            raise InputError(f"{source}: the key {split} must be a list of images")
        for number, entry in enumerate(entries, start=1):
            where = f"{source}, {split}, entry {number}"
            if not isinstance(entry, dict):
                raise InputError(f"{where}: must be a JSON object, not {type(entry).__name__}")
            image, defect = text_of(entry, "image_path", where), text_of(entry, "anomaly_class", where)
            own = text_of(entry, "category", where, required=False)
            if own and own != object_name:
                raise InputError(f"{where}: category is {own!r} in the list of {object_name!r}")
            label = int(defect != "OK")
            if label and split == "train" and not noisy:
                raise InputError(f"{where}: a defective training image; only the fuiad lists have those")
            mask = text_of(entry, "mask_path", where, required=False) if label else ""
            view = VIEW.fullmatch(PurePosixPath(image).stem)
            part = f"{object_name}/{PurePosixPath(image).parent.as_posix()}"
            rows.append(
                Row(where, object_name, split, label, image, mask, defect, prefix, part,
                    view[1] if view else "", unseen=bool(label) and not mask)
            )  # fmt: skip
    return rows
