"""Folders without an official split, only with labels. The split is made here, deterministically.

    <object>/good/*.png, <object>/bad/*.png
    <object>/ground_truth/bad/<stem>_mask.png            (if there are masks; also as in mvtec.py)

    MT_Free/Imgs/*.jpg, MT_Blowhole/Imgs/*.jpg + *.png   (magnetic tiles: masks beside the images)

Normal images are sorted by sha256(salt + file name); the first fraction is for training, the rest for testing
with all defective images. When images are added, only those near the boundary can change splits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.mvtec import defective, unused_masks
from iufbench.data.readers.reading import (
    NORMAL,
    choose_objects,
    contents,
    hashed_order,
    images_in,
    in_order,
    is_normal,
    looks_normal,
    require_both_splits,
    require_no_masks,
    require_root,
    skipped_note,
    unused_note,
)
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

SALT = "iufbench flat split 1: "
TRAINED = 0.7
TILES_SALT = "iufbench magnetic tiles split 1: "
TILES_TRAINED = 0.5  # 35 % of all images, as in the division that Rethinking-CAD made by hand


def is_flat(root: Path, objects: Sequence[str] | None = None, good: Sequence[str] = ()) -> bool:
    """Whether objects (all folders below ``root`` if None) have a folder of normal images and no split."""
    folders = contents(root)[1] if objects is None else [f for o in objects if (f := root / o).is_dir()]
    if any(folder.name in ("train", "test") or (folder / "train").is_dir() for folder in folders):
        return False
    names = {sub.name for folder in folders for sub in contents(folder)[1]}
    return any(name in NORMAL or name in good or looks_normal(name) for name in names)


def read_flat(
    root: str | os.PathLike[str],
    name: str = "flat",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
    good: Sequence[str] = (),
) -> DataSet:
    """All images: 70 % of an object's normal ones train, the rest and all others are tested.

    ``objects``: exactly these, in this order; None takes every folder, sorted by name. Every folder of an
    object but ``good`` (``ok``) and ``ground_truth`` is a defect type. Masks are all or nothing in each
    object. ``good``: further names of folders with normal images.

    Raises InputError for a missing root or object, an object without normal images or with too few of them,
    a defective image without a mask when others of the object have one, and files that are not images.
    """
    base = require_root(root, name)
    skipped: list[Path] = []
    unused: list[Path] = []
    chosen = choose_objects([folder.name for folder in contents(base, skipped)[1]], objects, base)
    samples: list[Sample] = []
    for object_name in chosen:
        samples += _flat_object(base / object_name, skipped, unused, good)
    require_both_splits(samples, chosen, str(base))
    notes = (
        f"no official split: {TRAINED:.0%} of the normal images train (flat split 1)",
        *skipped_note(base, skipped),
        *unused_note(base, unused),
    )
    without = [o for o in chosen if not (base / o / "ground_truth").is_dir()]
    if without and len(without) < len(chosen):
        notes += (f"no ground_truth folder, so image metrics only: {', '.join(without)}",)
    has_masks = len(without) < len(chosen)
    return DataSet(name, base, chosen, in_order(samples, chosen), has_masks, synthetic, notes=notes)


def _flat_object(folder: Path, skipped: list[Path], unused: list[Path], good: Sequence[str]) -> list[Sample]:
    files, folders = contents(folder, skipped)
    if files:
        raise InputError(f"{files[0]} is outside of the good and defect folders: move it into one")
    truth = folder / "ground_truth"
    normal: list[Path] = []
    samples: list[Sample] = []
    for sub in folders:
        if sub == truth:
            contents(truth, skipped)
            continue
        require_no_masks(sub)
        images = images_in(sub, skipped)
        if is_normal(sub, good):
            normal += images
        elif truth in folders:
            samples += defective(images, sub, truth, skipped)
        else:
            samples += [Sample(image, folder.name, "test", 1, sub.name) for image in images]
    if not normal:
        raise InputError(
            f"{folder} has no normal images in a folder good or ok (if {folder.name!r} is not an object, "
            "list the objects with --order or move it away)"
        )
    unused += unused_masks(truth, {file for sample in samples for file in sample.mask_files})
    return samples + _split(normal, folder.name, SALT, TRAINED)


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
