"""A data set is a list of samples; every reader returns one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Sample:
    """One image of one object.

    ``label`` is 0 for a normal and 1 for a defective image; it comes from the file list, never from
    the mask. ``defect`` is ``"good"`` for normal images. ``mask`` is None for normal images and for
    data sets without pixel annotation.
    """

    image: Path
    object: str
    split: Literal["train", "test"]
    label: int
    defect: str = "good"
    mask: Path | None = None


@dataclass(frozen=True)
class DataSet:
    """All samples below one root folder.

    ``name`` is what results are filed under (``visa``, ``visa-synthetic``); ``objects`` is the data
    set's own order, in which protocols introduce them.
    """

    name: str
    root: Path
    objects: tuple[str, ...]
    samples: tuple[Sample, ...]
    has_masks: bool = True
    synthetic: bool = False

    def select(self, split: str, objects: Iterable[str] | None = None) -> list[Sample]:
        """The samples of one split, of the named objects (all when None), in the data set's order."""
        wanted = set(self.objects if objects is None else objects)
        return [s for s in self.samples if s.split == split and s.object in wanted]

    def fingerprint(self) -> str:
        """sha256 over the sorted file list with sizes: names, splits, labels and byte counts.

        Modification times stay out on purpose: the same data copied elsewhere is the same data.
        """
        digest = hashlib.sha256()
        for s in sorted(self.samples, key=lambda s: str(s.image)):
            mask = "" if s.mask is None else f"{s.mask.relative_to(self.root)}:{s.mask.stat().st_size}"
            line = (
                f"{s.image.relative_to(self.root)}:{s.image.stat().st_size}:{s.object}:{s.split}:{s.label}:{mask}"
            )
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()
