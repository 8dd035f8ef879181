"""Images set aside to calibrate thresholds: listed as normal, and never used for training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from iufbench.data.readers.reading import hashed_order
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError

SHARE = 0.1  # of the training images of every object
FEWEST = 5


def set_aside(dataset: DataSet, objects: Iterable[str], share: float, seed: int) -> DataSet:
    """Set aside calibration images of every object.

    An object with at least five validation images is calibrated on all of them and trained on all of its
    training images. For other objects a fraction of the training images (at least five, selected by a hash of
    seed and file name) is set aside. Defective training images of a contaminated stream can be among them.

    Args:
        dataset: The data set, as modified by its stream.
        objects: The objects of the protocol.
        share: Fraction of the training images, in (0, 1).
        seed: Seed of the run.

    Returns:
        The data set with ``calibration``; its fingerprint is that of ``dataset``.

    Raises:
        InputError: An object would have no training images left.
    """
    chosen: list[Sample] = []
    for name in objects:
        validation = dataset.select("validation", (name,))
        if len(validation) >= FEWEST:
            chosen += validation
            continue
        images = dataset.training((name,))
        count = max(FEWEST, round(share * len(images)))
        if count >= len(images):
            raise InputError(
                f"--threshold: {name} has {len(images)} training images; with {count} set aside for "
                f"calibration (--calibration {share:g}, at least {FEWEST}) none is left to train on"
            )
        names = {s.image.relative_to(dataset.root).as_posix(): s for s in images}
        aside = set(hashed_order(names, f"calibration {seed}: ")[:count])
        chosen += [s for name, s in names.items() if name in aside]
    return replace(dataset, calibration=tuple(chosen))
