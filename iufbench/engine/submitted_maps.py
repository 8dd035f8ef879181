"""Anomaly maps of an external method: ``<folder>/<experience>/<image without suffix>.npy``.

The suffix may also be ``.tif``, ``.tiff`` or ``.png``.

Maps of any size are resized to that of the harness, bilinearly. Values are compared across images, so all
maps of an object must have the same scale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from iufbench.data.decoding import Decoding
from iufbench.data.images import decode
from iufbench.data.samples import Sample
from iufbench.support.errors import InputError

ENDINGS = (".npy", ".tif", ".tiff", ".png")
MAX_PIXELS = 2**25  # of one map
AS_STORED = Decoding(upright=False, max_pixels=MAX_PIXELS)


@dataclass
class MapFolder:
    """Reads the maps of a submission, each resized to ``side`` x ``side``, and hashes their files."""

    folder: Path
    side: int
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def read(self, experience: int, images: Sequence[str]) -> np.ndarray:
        """Read the maps of images after an experience, float32 [N, side, side].

        Raises InputError with the map that is missing or unusable.
        """
        maps = np.empty((len(images), self.side, self.side), dtype=np.float32)
        for k, name in enumerate(images):
            path = self._find(experience, name)
            self._digest.update(path.read_bytes())
            values = read_map(path)
            if values.shape != (self.side, self.side):
                resized = Image.fromarray(values).resize((self.side, self.side), Image.Resampling.BILINEAR)
                values = np.asarray(resized)
            maps[k] = values
        return maps

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes of all files read so far, in reading order."""
        return str(self._digest.hexdigest())

    def _find(self, experience: int, image: str) -> Path:
        stem = self.folder / str(experience) / PurePosixPath(image).with_suffix("")
        found = [path for ending in ENDINGS if (path := stem.parent / f"{stem.name}{ending}").is_file()]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"--maps {self.folder}: two maps of one image: {found[0]} and {found[1].name}")
        raise InputError(
            f"--maps {self.folder}: no map of {image} after experience {experience}: expected {stem} with "
            f"the suffix {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        )


def read_map(path: Path) -> np.ndarray:
    """Read one anomaly map, float32 [height, width].

    Raises InputError if it is not a matrix of finite numbers, or has 8 bits only.
    """
    values = _from_npy(path) if path.suffix == ".npy" else _from_image(path)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or 0 in values.shape:
        raise InputError(
            f"{path}: a map must be a matrix of numbers, not {values.dtype} {list(values.shape)}"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: the map has NaN or infinite values")
    return values


def _from_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # a forged header allocates nothing
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, OverflowError) as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: not an array that numpy can read without pickle ({reason})") from error
    if not isinstance(values, np.ndarray):
        raise InputError(f"{path}: several arrays in one file; save one map per file")
    if values.size > MAX_PIXELS:
        raise InputError(f"{path}: a map of {list(values.shape)} values; the limit is {MAX_PIXELS:,}")
    return np.array(values)


def _from_image(path: Path) -> np.ndarray:
    image = decode(path, AS_STORED)
    if image.mode != "F" and not image.mode.startswith("I"):
        raise InputError(
            f"{path}: a map of mode {image.mode}: 256 levels cause ties; save 16-bit grey, TIFF with "
            "floating-point numbers, or npy"
        )
    return np.asarray(image)


def with_masks(samples: Sequence[Sample], root: Path, folder: Path) -> list[Sample]:
    """Replace the masks of test samples by ``<folder>/<image without suffix>.png``.

    Raises InputError with a defective image without a mask.
    """
    found = []
    for sample in samples:
        if sample.label == 1 and not sample.unseen:
            name = PurePosixPath(sample.image.relative_to(root).as_posix()).with_suffix(".png")
            mask = folder / name
            if not mask.is_file():
                raise InputError(f"--masks: no mask of the defective image {sample.image}: expected {mask}")
            sample = replace(sample, mask=mask, more_masks=())
        found.append(sample)
    return found
