"""KolektorSDD and KolektorSDD2: one surface type each, a mask for every image, black for normal images.

    KolektorSDD    kos01/Part0.jpg, kos01/Part0_label.bmp                  (no official split)
    KolektorSDD2   {train,test}/10000.png, {train,test}/10000_GT.png

The ``.pyb`` split files of KolektorSDD2 are pickles and are not opened: an image is defective if its
mask marks a pixel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.masks import is_marked
from iufbench.data.readers.reading import (
    choose_objects,
    contents,
    hashed_order,
    in_order,
    require_both_splits,
    require_root,
)
from iufbench.data.samples import DataSet, Sample, Split
from iufbench.support.errors import InputError

TRAINED = 0.8  # of KolektorSDD's 50 items
SALT = "iufbench kolektorsdd split 1: "
NUMBER = re.compile(r"\d{5}")


def read_kolektorsdd2(
    root: str | os.PathLike[str],
    name: str = "kolektorsdd2",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """The images ``NNNNN.png`` of both folders; files with other names (the archive has a stray copy) are
    ignored. Defective training images keep their label and are not trained on.

    Raises InputError for a missing root or folder, an image without its ``_GT``, and masks that cannot be
    read.
    """
    base = require_root(root, name)
    chosen = choose_objects([name.removesuffix("-synthetic")], objects, base)
    samples = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        for image in contents(base / split)[0]:
            if NUMBER.fullmatch(image.stem) and image.suffix.lower() == ".png":
                mask = image.with_name(f"{image.stem}_GT{image.suffix}")
                samples.append(_sample(image, mask, chosen[0], split))
    require_both_splits(samples, chosen, str(base))
    return DataSet(name, base, chosen, in_order(samples, chosen), True, synthetic)


def read_kolektorsdd(
    root: str | os.PathLike[str],
    name: str = "kolektorsdd",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images. There is no official split: items are sorted by sha256(SALT + folder name); the normal
    images of the first 80 % are for training, all other images for testing.

    Raises InputError for a missing root, an image without its label, and masks that cannot be read.
    """
    base = require_root(root, name)
    chosen = choose_objects([name.removesuffix("-synthetic")], objects, base)
    items = {folder.name: folder for folder in contents(base)[1]}
    ordered = hashed_order(items, SALT)
    trained = set(ordered[: round(TRAINED * len(ordered))])
    samples = []
    for item, folder in items.items():
        for image in contents(folder)[0]:
            if not image.stem.endswith("_label"):
                mask = image.with_name(f"{image.stem}_label.bmp")
                split: Split = "train" if item in trained and not _is_marked(mask) else "test"
                samples.append(_sample(image, mask, chosen[0], split))
    require_both_splits(samples, chosen, str(base))
    notes = ("no official split: the normal images of 80 % of the items train (kolektorsdd split 1)",)
    return DataSet(name, base, chosen, in_order(samples, chosen), True, synthetic, notes=notes)


def _sample(image: Path, mask: Path, object_name: str, split: Split) -> Sample:
    if not _is_marked(mask):
        return Sample(image, object_name, split, 0)
    return Sample(image, object_name, split, 1, "defective", mask)


def _is_marked(mask: Path) -> bool:
    if not mask.is_file():
        raise InputError(f"{mask} is missing: every image has a mask, black where it is normal")
    return is_marked(mask)
