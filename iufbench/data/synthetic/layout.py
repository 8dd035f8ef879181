"""File paths of a synthetic data set: the MVTec AD layout and VisA's official one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .render import NORMAL_KINDS
from .scene import load_scenes


@dataclass(frozen=True)
class Job:
    """One image to render and its path relative to the root; ``ink`` is the mask's value."""

    dataset: str
    object: str
    kind: str
    index: int
    seed: int
    image: str
    mask: str = ""
    ink: int = 255


def plan(
    dataset: str, objects: Sequence[str], n_train: int, n_good: int, n_defective: int, seed: int
) -> Iterator[Job]:
    """List all images of a data set in file-list order; defective images cycle through the defect types."""
    place = _visa_paths if dataset == "visa" else _mvtec_paths
    for object_ in objects:
        defects = load_scenes()[dataset][object_].defects
        kinds = [("train", i) for i in range(n_train)] + [("good", i) for i in range(n_good)]
        kinds += [(defects[i % len(defects)], i // len(defects)) for i in range(n_defective)]
        for position, (kind, index) in enumerate(kinds):
            defective = kind not in NORMAL_KINDS
            number = position - (n_train + n_good if defective else 0)
            image, mask = place(object_, kind, index, number)
            ink = defects.index(kind) + 1 if defective and dataset == "visa" else 255
            yield Job(dataset, object_, kind, index, seed, image, mask, ink)


def _mvtec_paths(object_: str, kind: str, index: int, _number: int) -> tuple[str, str]:
    if kind in NORMAL_KINDS:
        return f"{object_}/{'train' if kind == 'train' else 'test'}/good/{index:03d}.png", ""
    return f"{object_}/test/{kind}/{index:03d}.png", f"{object_}/ground_truth/{kind}/{index:03d}_mask.png"


def _visa_paths(object_: str, kind: str, _index: int, number: int) -> tuple[str, str]:
    if kind in NORMAL_KINDS:
        return f"{object_}/Data/Images/Normal/{number:04d}.JPG", ""
    return f"{object_}/Data/Images/Anomaly/{number:03d}.JPG", f"{object_}/Data/Masks/Anomaly/{number:03d}.png"


def visa_split(jobs: Sequence[Job]) -> str:
    """The content of VisA's ``split_csv/1cls.csv``: CRLF line ends, one row per image."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(("object", "split", "label", "image", "mask"))
    for job in jobs:
        split = "train" if job.kind == "train" else "test"
        label = "normal" if job.kind in NORMAL_KINDS else "anomaly"
        rows.writerow((job.object, split, label, job.image, job.mask))
    return text.getvalue()
