"""The RGB part of MVTec 3D-AD and of data sets in its layout (Eyecandies as prepared by M3DM, 3D-ADAM).

    <object>/{train,validation}/good/rgb/000.png
    <object>/test/{good,<defect>}/rgb/000.png
    <object>/test/<defect>/gt/000.png            or  <object>/ground_truth/<defect>/000.png

Ignored: folders other than ``rgb`` and ``gt`` (``xyz``, ``depth``), folders without ``train``
(``calibration``), and the black masks of normal images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.reading import (
    choose_objects,
    contents,
    images_in,
    in_order,
    is_normal,
    require_both_splits,
    require_root,
)
from iufbench.data.samples import DataSet, Sample, Split
from iufbench.support.errors import InputError

CAMERA = re.compile(r".*_([A-Z])")  # 3D-ADAM: 001_C.png


def read_mvtec3d(
    root: str | os.PathLike[str],
    name: str = "mvtec3d",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
    validation_in_training: bool = False,
    good: Sequence[str] = (),
) -> DataSet:
    """All RGB images, in the order of objects, then training, validation and test, then file path.

    ``objects``: exactly these, in this order; None takes every folder with a ``train`` folder, sorted by
    name. ``validation_in_training``: also train on the validation images, as IB-IUMAD does. ``good``: further
    names of folders with normal images.

    Raises InputError for a missing root, object or split, defective training images, a defective image
    without a mask, two masks of one image, and files that are not images.
    """
    base = require_root(root, name)
    found = [folder.name for folder in contents(base)[1] if (folder / "train").is_dir()]
    chosen = choose_objects(found, objects, base)
    samples = [s for o in chosen for s in _samples(base / o, validation_in_training, good)]
    require_both_splits(samples, chosen, str(base))
    notes = ("validation images are also used for training",) if validation_in_training else ()
    return DataSet(name, base, chosen, in_order(samples, chosen), True, synthetic, notes=notes)


def _samples(folder: Path, validation_in_training: bool, good: Sequence[str]) -> list[Sample]:
    samples = []
    for kind in ("train", "validation"):
        if not (folder / kind).is_dir():
            continue
        for sub in contents(folder / kind)[1]:
            if not is_normal(sub, good):
                raise InputError(f"{sub}: {kind} images must be normal, in {kind}/good")
            split: Split = "train" if kind == "train" or validation_in_training else "validation"
            samples += [_sample(image, folder.name, split, None) for image in images_in(sub / "rgb")]
    for sub in contents(folder / "test")[1]:
        images = images_in(sub / "rgb")
        if is_normal(sub, good):
            samples += [_sample(image, folder.name, "test", None) for image in images]
            continue
        masks = _masks(sub / "gt") or _masks(folder / "ground_truth" / sub.name)
        for image in images:
            mask = masks.get(image.stem, masks.get(f"{image.stem}_mask"))
            if mask is None:
                raise InputError(f"{image} has no mask: {sub / 'gt' / image.name} is missing")
            samples.append(_sample(image, folder.name, "test", sub.name, mask))
    return samples


def _sample(
    image: Path, object_name: str, split: Split, defect: str | None, mask: Path | None = None
) -> Sample:
    camera = CAMERA.fullmatch(image.stem)
    return Sample(
        image,
        object_name,
        split,
        int(defect is not None),
        defect or "good",
        mask,
        condition=camera[1] if camera else "",
    )


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for file in images_in(folder) if folder.is_dir() else []:
        if file.stem in masks:
            raise InputError(f"two masks of one image: {masks[file.stem]} and {file.name}; remove one")
        masks[file.stem] = file
    return masks
