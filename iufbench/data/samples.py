"""A data set is a list of samples; every reader returns one."""

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
    objects without pixel annotation; ``more_masks`` are the further files where several together are
    the mask (MVTec LOCO: one file per region).

    ``unseen``: the part is defective, but this image of it does not show the defect: its mask is empty.
    ``part`` names the physical part where several images show one (Real-IAD's five views), ``condition``
    how the image was taken where the data set says so (lighting, camera); "" otherwise.
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
        """Every file of the mask, which is their union; empty without one."""
        return () if self.mask is None else (self.mask, *self.more_masks)


@dataclass(frozen=True)
class DataSet:
    """All samples below one root folder.

    ``name`` is what results are filed under (``visa``, ``visa-synthetic``); ``objects`` is the data
    set's own order, in which protocols introduce them. ``has_masks``: some object has masks
    (``is_masked`` tells which). ``notes`` are what the reader came across and a user should hear of once;
    ``decoding``: how files become pixels.
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

    def is_masked(self, name: str) -> bool:
        """Whether the object has pixel annotation: every defective test image of it has a mask."""
        defective = [s for s in self.select("test", (name,)) if s.label == 1 and not s.unseen]
        return self.has_masks and all(s.mask for s in defective)

    def training(self, objects: Iterable[str] | None = None) -> list[Sample]:
        """The images that training sees: normal ones, and all of them with ``noisy_training``."""
        return [s for s in self.select("train", objects) if self.noisy_training or s.label == 0]

    def select(self, split: str, objects: Iterable[str] | None = None) -> list[Sample]:
        """The samples of one split, of the named objects (all when None), in the data set's order."""
        wanted = set(self.objects if objects is None else objects)
        return [s for s in self.samples if s.split == split and s.object in wanted]

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per object: ``{object: {"train": n, "test_good": n, "test_defective": n}}``.

        ``train`` are normal images. Where a data set has them: ``train_defective``, ``validation``.
        """
        table = {name: {"train": 0, "test_good": 0, "test_defective": 0} for name in self.objects}
        names = {("train", 0): "train", ("train", 1): "train_defective", ("test", 0): "test_good"}
        names[("test", 1)] = "test_defective"
        for s in self.samples:
            kind = names.get((s.split, s.label), s.split)
            table[s.object][kind] = table[s.object].get(kind, 0) + 1
        return table

    def fingerprint(self) -> str:
        """sha256 over the sorted file list with sizes: names, splits, labels and byte counts.

        Modification times stay out on purpose: the same data copied elsewhere is the same data. Of a data set
        that was made from another one (``made_from``), over its ``identity``: what it was made from, and how.
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
