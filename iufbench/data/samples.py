"""Data sets as lists of samples; every reader returns one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from iufbench.data.decoding import AS_SHOWN, Decoding

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Sample:
    """One image of one object.

    ``label`` is 0 for a normal and 1 for a defective image; it comes from the file list, never from
    the mask. ``defect`` is ``"good"`` for normal images. ``mask`` is None for normal images and for
    objects without pixel annotation; ``more_masks`` are further files if the mask is the union of several
    (MVTec LOCO: one file per region).

    ``unseen``: the part is defective, but the defect is not visible in this image: its mask is empty.
    ``part`` is the physical part if several images show the same one (Real-IAD's five views), ``condition``
    the recording condition if the data set specifies it (lighting, camera); "" otherwise.
    """

    image: Path
    object: str
    split: Split
    label: int
    defect: str = "good"
    mask: Path | None = None
    more_masks: tuple[Path, ...] = ()
    part: str = ""
    condition: str = ""
    unseen: bool = False

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """The files whose union is the mask; empty without a mask."""
        return () if self.mask is None else (self.mask, *self.more_masks)


@dataclass(frozen=True)
class DataSet:
    """All samples below one root folder.

    ``name`` is the name under which results are stored (``visa``, ``visa-synthetic``); ``objects`` are in the
    data set's own order, in which protocols introduce them. ``has_masks``: some objects have masks (see
    ``is_masked``). ``notes`` are observations of the reader that are shown to the user once; ``decoding``:
    how image files are decoded; ``calibration``: normal images that thresholds are calibrated on
    (``data.calibration``), none of them used for training.
    """

    name: str
    root: Path
    objects: tuple[str, ...]
    samples: tuple[Sample, ...]
    has_masks: bool = True
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    noisy_training: bool = False
    decoding: Decoding = AS_SHOWN
    identity: str = ""
    made_from: Path | None = None
    calibration: tuple[Sample, ...] = ()

    def is_masked(self, name: str) -> bool:
        """Whether the object has pixel annotation: all its defective test images have masks."""
        defective = [s for s in self.select("test", (name,)) if s.label == 1 and not s.unseen]
        return self.has_masks and all(s.mask for s in defective)

    def training(self, objects: Iterable[str] | None = None) -> list[Sample]:
        """The images to train on: the normal ones (all with ``noisy_training``), without ``calibration``."""
        aside = {s.image for s in self.calibration}
        images = self.select("train", objects)
        return [s for s in images if (self.noisy_training or s.label == 0) and s.image not in aside]

    def calibrating(self, name: str) -> list[Sample]:
        """The calibration images of one object, in the data set's order."""
        return [s for s in self.calibration if s.object == name]

    def select(self, split: str, objects: Iterable[str] | None = None) -> list[Sample]:
        """The samples of one split and the given objects (all if None), in the data set's order."""
        wanted = set(self.objects if objects is None else objects)
        return [s for s in self.samples if s.split == split and s.object in wanted]

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per object: ``{object: {"train": n, "test_good": n, "test_defective": n}}``.

        ``train`` counts normal images. ``train_defective`` and ``validation`` are only added if non-zero.
        """
        table = {name: {"train": 0, "test_good": 0, "test_defective": 0} for name in self.objects}
        names = {("train", 0): "train", ("train", 1): "train_defective", ("test", 0): "test_good"}
        names[("test", 1)] = "test_defective"
        for s in self.samples:
            kind = names.get((s.split, s.label), s.split)
            table[s.object][kind] = table[s.object].get(kind, 0) + 1
        return table

    def fingerprint(self) -> str:
        """SHA-256 over the sorted file list: names, splits, labels and file sizes.

        Modification times are excluded on purpose: a copy is the same data. For a data set derived from
        another one (``made_from``), the hash of its ``identity`` (source and derivation).
        """
        if self.identity:
            return hashlib.sha256(self.identity.encode("utf-8", "surrogateescape")).hexdigest()
        lines = []
        for s in self.samples:
            mask = "+".join(map(self._name_and_size, s.mask_files))
            lines.append(f"{self._name_and_size(s.image)}:{s.object}:{s.split}:{s.label}:{mask}\n")
        return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()

    def _name_and_size(self, path: Path) -> str:
        return f"{path.relative_to(self.root).as_posix()}:{path.stat().st_size}"
