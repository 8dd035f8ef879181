"""MVTec AD 2: a public test set, and private test sets without labels (scored by the benchmark's server).

    <object>/{train,validation}/good/000_regular.png
    <object>/test_public/{good,bad}/000_overexposed.png
    <object>/test_public/ground_truth/bad/000_overexposed_mask.png
    <object>/test_private/000_regular.png
    <object>/test_private_mixed/000_mixed.png

The suffix after the number in a file name is the lighting: the ``condition`` of a sample.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.data.readers.reading import (
    choose_objects,
    contents,
    images_in,
    in_order,
    require_both_splits,
    require_root,
)
from iufbench.data.samples import DataSet, Sample, Split
from iufbench.support.errors import InputError

PRIVATE = ("test_private", "test_private_mixed")


def read_mvtec_ad_2(
    root: str | os.PathLike[str],
    name: str = "mvtecad2",
    objects: Sequence[str] | None = None,
    synthetic: bool = False,
) -> DataSet:
    """Training, validation and public test images, in the order of objects, then split, then file path.

    ``objects``: exactly these, in this order; None takes every folder with ``test_public``, sorted by name.
    Raises InputError for a missing root, object or split, a defective image without a mask, and files that
    are not images.
    """
    base = require_root(root, name)
    found = [folder.name for folder in contents(base)[1] if (folder / "test_public").is_dir()]
    chosen = choose_objects(found, objects, base)
    samples = [s for o in chosen for s in _samples(base / o)]
    require_both_splits(samples, chosen, str(base))
    return DataSet(name, base, chosen, in_order(samples, chosen), True, synthetic)


def private_images(root: Path, object_name: str) -> dict[str, list[Path]]:
    """The images of each private test set of one object; missing sets are skipped."""
    return {s: images_in(root / object_name / s) for s in PRIVATE if (root / object_name / s).is_dir()}


def lighting(stem: str) -> str:
    """The lighting condition in a file name.

    >>> lighting("003_shift_1"), lighting("003")
    ('shift_1', '')
    """
    return stem.partition("_")[2]


def _samples(folder: Path) -> list[Sample]:
    def read(place: Path, split: Split, label: int) -> list[Sample]:
        samples = []
        for image in images_in(place) if place.is_dir() else []:
            mask = folder / "test_public" / "ground_truth" / "bad" / f"{image.stem}_mask.png"
            if label and not mask.is_file():
                raise InputError(f"{image} has no mask: {mask} is missing")
            light = lighting(image.stem)
            defect, own = ("bad", mask) if label else ("good", None)
            samples.append(Sample(image, folder.name, split, label, defect, own, condition=light))
        return samples

    for sub in contents(folder / "test_public")[1]:
        if sub.name not in ("good", "bad", "ground_truth"):
            raise InputError(f"{sub}: test_public has the folders good, bad and ground_truth only: rename it")
    return [
        *read(folder / "train" / "good", "train", 0),
        *read(folder / "validation" / "good", "validation", 0),
        *read(folder / "test_public" / "good", "test", 0),
        *read(folder / "test_public" / "bad", "test", 1),
    ]
