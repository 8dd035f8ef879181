"""The MVTec AD layout, which most anomaly detection data sets follow.

    <object>/train/good/000.png
    <object>/validation/good/000.png                (MVTec LOCO: normal images not used for training)
    <object>/test/good/000.png, <object>/test/<defect>/000.png
    <object>/ground_truth/<defect>/000_mask.png     (derivatives also: 000.png)
    <object>/ground_truth/<defect>/000/000.png ...  (MVTec LOCO: a folder per image, a file per region)

Some derivatives (BTAD) call the normal folder ``ok``: both names are supported. Images may be png,
jpg, jpeg, bmp, tif or tiff in any case; text files, annotation files and operating system files are
skipped everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from iufbench.data.readers.reading import (
    IMAGE_SUFFIXES,
    NORMAL,
    choose_objects,
    contents,
    images_in,
    is_normal,
    require_images,
    require_no_masks,
    require_root,
    skipped_note,
    unused_note,
)
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError


def read_mvtec(
    root: str | os.PathLike[str],
    name: str = "mvtec",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
    defective_training: bool = False,
    good: Sequence[str] = (),
) -> DataSet:
    """All images below a folder in MVTec layout, sorted by object, split, defect and file name.

    ``objects``: exactly these are required and read, in this order; None takes every folder found,
    sorted by name. Masks are all or nothing in each object: one without a ``ground_truth`` folder has no
    pixel annotation (a note says so where others have); otherwise every defective test image needs its
    mask. ``has_masks`` is False if no object has any. With ``defective_training``, ``train`` may have other
    folders than ``good``: their images keep their label and are not trained on. ``good``: further names of
    folders with normal images, besides good and ok.

    Raises InputError for a missing root or object, an empty training folder, defective images among
    the training images, no test images, a defective image without a mask, and files that are not images.
    """
    base = require_root(root, name)
    skipped: list[Path] = []
    _, folders = contents(base, skipped)
    found = [folder.name for folder in folders]
    single = any(name in found and not (base / name / "train").is_dir() for name in NORMAL)
    if (single or {"train", "test"} <= set(found)) and not set(objects or ()) & set(found):
        raise InputError(
            f"{base} looks like a single object: the data root is the folder above, {base.parent}"
        )
    if objects and not set(objects) & set(found):
        nested = next((f for f in folders if (f / objects[0]).is_dir()), None)
        if nested is not None:
            raise InputError(f"{base} holds no object folders, but {nested} does: use that as the data root")
    chosen = choose_objects(found, objects, base)
    samples: list[Sample] = []
    strange: list[Path] = []
    for object_name in chosen:
        samples += _train(base / object_name, defective_training, skipped, good)
        samples += _validation(base / object_name, skipped, good)
        samples += _test(base / object_name, skipped, good, strange)
    notes = (*skipped_note(base, skipped), *unused_note(base, strange))
    without = [o for o in chosen if not (base / o / "ground_truth").is_dir()]
    if without and len(without) < len(chosen):
        notes += (f"no ground_truth folder, so image metrics only: {', '.join(without)}",)
    return DataSet(name, base, chosen, tuple(samples), len(without) < len(chosen), synthetic, notes)


def _image_folders(folder: Path, skipped: list[Path]) -> list[Path]:
    """The folders in ``<object>/train`` or ``<object>/test``."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is missing: an object in MVTec layout has train/good and test/<defect> folders "
            f"(if {folder.parent.name!r} is not an object, list the objects with --order or move it away)"
        )
    files, folders = contents(folder, skipped)
    if files:
        raise InputError(f"{files[0]} is outside of the good and defect folders: move it into one")
    return folders


def _train(folder: Path, defective_too: bool, skipped: list[Path], good: Sequence[str]) -> list[Sample]:
    samples: list[Sample] = []
    for sub in _image_folders(folder / "train", skipped):
        if is_normal(sub, good):
            samples += [Sample(image, folder.name, "train", 0) for image in images_in(sub, skipped)]
        elif defective_too:
            samples += [Sample(image, folder.name, "train", 1, sub.name) for image in images_in(sub, skipped)]
        else:
            raise InputError(f"{sub}: training images must be normal, in train/good")
    if not any(s.label == 0 for s in samples):
        raise InputError(
            f"no training images in {folder / 'train' / 'good'}: is the data set unpacked completely?"
        )
    return samples


def _validation(folder: Path, skipped: list[Path], good: Sequence[str]) -> list[Sample]:
    place = folder / "validation"
    subs = _image_folders(place, skipped) if place.is_dir() else []
    for sub in subs:
        if not is_normal(sub, good):
            raise InputError(f"{sub}: validation images must be normal, in validation/good")
    return [Sample(image, folder.name, "validation", 0) for sub in subs for image in images_in(sub, skipped)]


def _test(folder: Path, skipped: list[Path], good: Sequence[str], strange: list[Path]) -> list[Sample]:
    samples: list[Sample] = []
    truth = folder / "ground_truth"
    has_masks = truth.is_dir()
    if has_masks:
        contents(truth, skipped)
    for sub in contents(folder, skipped)[1]:
        if sub.name not in ("train", "validation", "test", "ground_truth"):
            if not has_masks:
                require_no_masks(sub)
            strange.append(sub)
    used: set[Path] = set()
    for sub in _image_folders(folder / "test", skipped):
        images = images_in(sub, skipped)
        if is_normal(sub, good):
            samples += [Sample(image, folder.name, "test", 0) for image in images]
            continue
        found = defective(images, sub, truth, skipped) if has_masks else [
            Sample(image, folder.name, "test", 1, sub.name) for image in images
        ]  # fmt: skip
        used |= {file for sample in found for file in sample.mask_files}
        samples += found
    strange += unused_masks(truth, used)
    if not samples:
        raise InputError(f"no test images in {folder / 'test'}: is the data set unpacked completely?")
    return samples


def defective(images: Sequence[Path], folder: Path, truth: Path, skipped: list[Path]) -> list[Sample]:
    """The images of the defect ``folder`` with their masks in ``truth``, as defective test samples.

    Raises InputError for an image without a mask and for several masks of one image.
    """
    masks, samples = _masks(truth / folder.name, skipped), []
    for image in images:
        mask = masks.get(f"{image.stem}_mask", masks.get(image.stem, ()))
        if not mask:
            raise InputError(
                f"{image} has no mask: {truth / folder.name / (image.stem + '_mask.png')} is missing "
                f"(an object without a ground_truth folder is read without masks)"
            )
        samples.append(Sample(image, truth.parent.name, "test", 1, folder.name, mask[0], mask[1:]))
    return samples


def unused_masks(truth: Path, used: Collection[Path]) -> list[Path]:
    """The images below ``truth`` that are masks of no image."""
    if not truth.is_dir():
        return []
    files, folders = contents(truth)
    below = [file for sub in folders for file in unused_masks(sub, used)]
    return [f for f in files if f not in used and f.suffix.lower() in IMAGE_SUFFIXES] + below


def _masks(folder: Path, skipped: list[Path]) -> dict[str, tuple[Path, ...]]:
    """The files of every mask, by stem or by the name of their folder; empty without ``folder``."""
    masks: dict[str, tuple[Path, ...]] = {}
    files, folders = contents(folder, skipped) if folder.is_dir() else ([], [])
    for file in require_images(files):
        if file.stem in masks:
            raise InputError(f"two masks of one image: {masks[file.stem][0]} and {file.name}; remove one")
        masks[file.stem] = (file,)
    for several in folders:
        if several.name in masks or f"{several.name}_mask" in masks:
            raise InputError(f"two masks of one image: folder {several} and a file beside it; remove one")
        masks[several.name] = tuple(images_in(several, skipped))
        if not masks[several.name]:
            raise InputError(f"{several} has no mask: remove the folder or unpack the data set completely")
    return masks
