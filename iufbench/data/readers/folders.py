"""Folders without an official split, only with labels. The split is made here, deterministically.

    <object>/good/*.png, <object>/bad/*.png
    <object>/ground_truth/bad/<stem>_mask.png            (if there are masks)

    MT_Free/Imgs/*.jpg, MT_Blowhole/Imgs/*.jpg + *.png   (magnetic tiles: masks beside the images)

Normal images are sorted by sha256(salt + file name); the first fraction is for training, the rest for testing
with all defective images. When images are added, only those near the boundary can change splits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.reading import (
    NORMAL,
    choose_objects,
    contents,
    hashed_order,
    images_in,
    in_order,
    is_normal,
    require_both_splits,
    require_root,
)
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

SALT = "iufbench flat split 1: "
TRAINED = 0.7
TILES_SALT = "iufbench magnetic tiles split 1: "
TILES_TRAINED = 0.5  # 35 % of all images, as in the division that Rethinking-CAD made by hand


def is_flat(root: Path) -> bool:
    """Whether every folder below ``root`` has ``good`` (or ``ok``) and no split."""
    folders = contents(root)[1]
    split = {"train", "test"} & {folder.name for folder in folders}
    return (
        bool(folders)
        and not split
        and all(any((f / good).is_dir() for good in NORMAL) and not (f / "train").is_dir() for f in folders)
    )


def read_flat(
    root: str | os.PathLike[str],
    name: str = "flat",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images: 70 % of an object's normal ones train, the rest and all others are tested.

    ``objects``: exactly these, in this order; None takes every folder, sorted by name. Every folder of an
    object but ``good`` (``ok``) and ``ground_truth`` is a defect type. Masks are all or nothing.

    Raises InputError for a missing root or object, an object without normal images or with too few of them,
    a defective image without a mask when others have one, and files that are not images.
    """
    base = require_root(root, name)
    chosen = choose_objects([folder.name for folder in contents(base)[1]], objects, base)
    has_masks = any((base / o / "ground_truth").is_dir() for o in chosen)
    samples: list[Sample] = []
    for object_name in chosen:
        normal: list[Path] = []
        for sub in contents(base / object_name)[1]:
            if is_normal(sub):
                normal += images_in(sub)
            elif sub.name != "ground_truth":
                masks = base / object_name / "ground_truth" / sub.name
                samples += [_defective(i, object_name, sub.name, masks, has_masks) for i in images_in(sub)]
        samples += _split(normal, object_name, SALT, TRAINED)
    require_both_splits(samples, chosen, str(base))
    notes = (f"no official split: {TRAINED:.0%} of the normal images train (flat split 1)",)
    return DataSet(name, base, chosen, in_order(samples, chosen), has_masks, synthetic, notes=notes)


def read_magnetic_tiles(
    root: str | os.PathLike[str],
    name: str = "mtd",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images as one object: half of ``MT_Free`` trains, the rest and all defects are tested.

    Raises InputError for a missing root or folder, a defective image without a mask, and files that are not
    images.
    """
    base = require_root(root, name)
    chosen = choose_objects([name.removesuffix("-synthetic")], objects, base)
    samples: list[Sample] = []
    for folder in (f for f in contents(base)[1] if f.name.startswith("MT_")):
        images = [i for i in images_in(folder / "Imgs") if i.suffix.lower() == ".jpg"]
        if folder.name == "MT_Free":
            samples += _split(images, chosen[0], TILES_SALT, TILES_TRAINED)
            continue
        for image in images:
            mask = image.with_suffix(".png")
            if not mask.is_file():
                raise InputError(f"{image} has no mask: {mask} is missing")
            samples.append(Sample(image, chosen[0], "test", 1, folder.name[3:].lower(), mask))
    require_both_splits(samples, chosen, str(base))
    notes = (f"no official split: {TILES_TRAINED:.0%} of MT_Free trains (magnetic tiles split 1)",)
    return DataSet(name, base, chosen, in_order(samples, chosen), True, synthetic, notes=notes)


def _split(images: Sequence[Path], object_name: str, salt: str, share: float) -> list[Sample]:
    ordered = hashed_order([image.name for image in images], f"{salt}{object_name}/")
    trained = set(ordered[: round(share * len(ordered))])
    return [Sample(i, object_name, "train" if i.name in trained else "test", 0) for i in images]


def _defective(image: Path, object_name: str, defect: str, masks: Path, has_masks: bool) -> Sample:
    there = [masks / f"{image.stem}{end}" for end in ("_mask.png", ".png") if has_masks]
    mask = next((m for m in there if m.is_file()), None)
    if has_masks and mask is None:
        raise InputError(f"{image} has no mask: {there[0]} is missing")
    return Sample(image, object_name, "test", 1, defect, mask)
