"""DAGM 2007: ten artificial textures, with defective images in training too.

    Class1/{Train,Test}/0576.PNG
    Class1/{Train,Test}/Label/0576_label.PNG     only for defective images; coarse ellipses
    Class1/{Train,Test}/Label/Labels.txt         names the label images

An image is defective if it has a label image; one that ``Labels.txt`` names must be there. Defective training
images keep their label, and training leaves them out. Masks are coarse: pixel metrics mean little here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from iufbench.data.readers.reading import (
    choose_objects,
    contents,
    images_in,
    in_order,
    read_list,
    require_root,
)
from iufbench.data.samples import DataSet, Sample, Split
from iufbench.support.errors import InputError


def read_dagm(
    root: str | os.PathLike[str],
    name: str = "dagm",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images; objects are the classes in the order of their numbers (Class2 before Class10), or the
    ``objects`` asked for.

    Raises InputError for a missing root, class or split, a missing label image, a label image without its
    image, and files that are not images.
    """
    base = require_root(root, name)
    found = [folder.name for folder in contents(base)[1] if (folder / "Train").is_dir()]
    natural = tuple(sorted(found, key=lambda n: (int("".join(re.findall(r"\d+", n)) or 0), n)))
    chosen = choose_objects(found, natural if objects is None and found else objects, base)
    samples = [s for o in chosen for s in (*_split(base / o, "train"), *_split(base / o, "test"))]
    return DataSet(name, base, chosen, in_order(samples, chosen), True, synthetic)


def _split(folder: Path, split: Split) -> list[Sample]:
    place = folder / split.title()
    files, _ = contents(place)
    masks = {m.stem.removesuffix("_label"): m for m in images_in(place / "Label")} if files else {}
    _require_labels(place / "Label", masks.values())
    samples = []
    for image in files:
        mask = masks.pop(image.stem, None)
        defect = "defective" if mask else "good"
        samples.append(Sample(image, folder.name, split, int(mask is not None), defect, mask))
    if masks:
        raise InputError(f"{next(iter(masks.values()))} labels an image that is not in {place}")
    if not samples:
        raise InputError(f"no images in {place}: is the data set unpacked completely?")
    return samples


def _require_labels(folder: Path, found: Iterable[Path]) -> None:
    if not (folder / "Labels.txt").is_file():
        return
    named = re.findall(r"\S+_label\.png", read_list(folder / "Labels.txt"), re.IGNORECASE)
    missing = {name.lower() for name in named} - {path.name.lower() for path in found}
    if missing:
        raise InputError(
            f"{folder / 'Labels.txt'} names {min(missing)} ({len(missing)} in all), which is missing: "
            "without it a defective image would count as good; unpack the data set again"
        )
