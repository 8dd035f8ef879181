"""Data sets without their images: the official lists of files that come with iufbench."""

from __future__ import annotations

import csv
import gzip
import hashlib
from importlib import resources
from pathlib import Path

from iufbench.data.samples import DataSet, Sample

NOTE = "labels from the official list of images; no image or mask was read"


def listed(name: str, objects: tuple[str, ...]) -> DataSet | None:
    """The images of a data set by its official list, for labels where the images themselves are not needed.

    Args:
        name: Name of the data set.
        objects: Its objects, in its own order.

    Returns:
        The data set without masks; its fingerprint is that of the list. None if no list comes with iufbench.
    """
    file = resources.files("iufbench.benchmarks") / "lists" / f"{name}.csv.gz"
    if not file.is_file():
        return None
    text = gzip.decompress(file.read_bytes()).decode()
    root = Path(name)
    samples = tuple(
        Sample(
            root / row["image"],
            row["object"],
            "test" if row["split"] == "test" else "train",
            int(row["label"]),
            "defective" if row["label"] == "1" else "good",
        )
        for row in csv.DictReader(text.splitlines())
    )
    identity = f"official list of {name}, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"
    return DataSet(name, root, objects, samples, has_masks=False, notes=(NOTE,), identity=identity)
