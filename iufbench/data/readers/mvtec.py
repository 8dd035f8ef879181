"""The MVTec AD layout, which most anomaly detection data sets follow.

    <object>/train/good/000.png
    <object>/test/good/000.png, <object>/test/<defect>/000.png
    <object>/ground_truth/<defect>/000_mask.png     (derivatives also: 000.png)

Some derivatives (BTAD) call the normal folder ``ok``: both names are understood. Images may be png,
jpg, jpeg, bmp, tif or tiff in any case; text files and hidden files are skipped wherever they stand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.reading import choose_objects, contents, images_in, require_root
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

NORMAL = ("good", "ok")


def read_mvtec(
    root: str | os.PathLike[str],
    name: str = "mvtec",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """All images below a folder in MVTec layout, sorted by object, split, defect and file name.

    ``objects``: exactly these are required and read, in this order; None takes every folder found,
    sorted by name. Masks are all or nothing: if no object has a ``ground_truth`` folder the data set
    counts as one without pixel annotation (``has_masks`` False); otherwise every defective test
    image needs its mask.

    Raises InputError for a missing root or object, an empty training folder, defective images among
    the training images, no test images, a defective image without mask, and files that are no images.
    """
    base = require_root(root, name)
    _, folders = contents(base)
    found = [folder.name for folder in folders]
    if objects is None and {"train", "test"} <= set(found):
        raise InputError(
            f"{base} looks like a single object: the data root is the folder above, {base.parent}"
        )
    if objects and not set(objects) & set(found):
        nested = next((f for f in folders if (f / objects[0]).is_dir()), None)
        if nested is not None:
            raise InputError(f"{base} holds no object folders, but {nested} does: use that as the data root")
    chosen = choose_objects(found, objects, base)
    has_masks = any((base / o / "ground_truth").is_dir() for o in chosen)
    samples: list[Sample] = []
    for object_name in chosen:
        samples += _train(base / object_name)
        samples += _test(base / object_name, has_masks)
    return DataSet(name, base, chosen, tuple(samples), has_masks, synthetic)


def _image_folders(folder: Path) -> list[Path]:
    """The folders in ``<object>/train`` or ``<object>/test``."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is missing: an object in MVTec layout has train/good and test/<defect> folders "
            f"(if {folder.parent.name!r} is no object, name the objects or move it away)"
        )
    files, folders = contents(folder)
    if files:
        raise InputError(f"{files[0]} stands outside of a good or defect folder: move it into one")
    return folders


def _train(folder: Path) -> list[Sample]:
    samples: list[Sample] = []
    for sub in _image_folders(folder / "train"):
        if sub.name not in NORMAL:
            raise InputError(f"{sub}: training images must be normal, in train/good")
        samples += [Sample(image, folder.name, "train", 0) for image in images_in(sub)]
    if not samples:
        raise InputError(
            f"no training images in {folder / 'train' / 'good'}: is the data set unpacked completely?"
        )
    return samples


def _test(folder: Path, has_masks: bool) -> list[Sample]:
    samples: list[Sample] = []
    for sub in _image_folders(folder / "test"):
        images = images_in(sub)
        if sub.name in NORMAL:
            samples += [Sample(image, folder.name, "test", 0) for image in images]
            continue
        masks = _masks(folder / "ground_truth" / sub.name) if has_masks else {}
        for image in images:
            mask = masks.get(f"{image.stem}_mask", masks.get(image.stem))
            if has_masks and mask is None:
                raise InputError(
                    f"{image} has no mask: {folder / 'ground_truth' / sub.name / (image.stem + '_mask.png')} "
                    f"is missing (a data set without any ground_truth folder is read without masks)"
                )
            samples.append(Sample(image, folder.name, "test", 1, sub.name, mask))
    if not samples:
        raise InputError(f"no test images in {folder / 'test'}: is the data set unpacked completely?")
    return samples


def _masks(folder: Path) -> dict[str, Path]:
    """Mask files by stem; empty when the folder is not there."""
    masks: dict[str, Path] = {}
    for file in images_in(folder) if folder.is_dir() else []:
        if file.stem in masks:
            raise InputError(f"two masks of one image: {masks[file.stem]} and {file.name}; remove one")
        masks[file.stem] = file
    return masks
