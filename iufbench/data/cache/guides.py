"""The small images used by a learner's classifier, and their cache, which is built from the image cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iufbench.data.cache.array_store import obtain
from iufbench.data.cache.entry import CHUNK, Spec
from iufbench.data.cache.images import Files, Rows, image_spec
from iufbench.support.progress import Progress


def guide_spec(files: Files, size: int, guide_size: int) -> Spec:
    """The cache entry with ``files`` as uint8 [N, 3, guide_size, guide_size]."""
    images = image_spec(files, size)
    return Spec(
        kind="guides",
        label=f"{images.label}-{guide_size}",
        identity={**images.identity, "image_size": size},
        version=images.version,
        rows=images.rows,
        shape=(3, guide_size, guide_size),
        dtype="uint8",
    )


def cached_guides(
    folder: Path,
    files: Files,
    size: int,
    guide_size: int,
    pixels: Callable[[], Callable[[Path], np.ndarray]],
    progress: Progress,
    compare: bool = False,
) -> Rows:
    """Every image of ``files`` as uint8 [3, guide_size, guide_size], computed if not cached.

    ``pixels`` is only called then; it returns a function that reads an image. Raises as ``obtain`` does.
    """

    def produce(rows: Sequence[int]) -> Iterator[np.ndarray]:
        read = pixels()
        for first in range(0, len(rows), CHUNK):
            guides = [small(read(files.paths[row]), guide_size) for row in rows[first : first + CHUNK]]
            yield torch.cat(guides).numpy()

    spec = guide_spec(files, size, guide_size)
    return Rows(obtain(folder, spec, produce, progress, compare), files.paths)


def small(pixels: np.ndarray, size: int) -> Tensor:
    """uint8 [1, 3, size, size] of an image [S, S, 3], by ``shrink``."""
    return shrink(torch.from_numpy(np.array(pixels[None])).permute(0, 3, 1, 2), size)


def shrink(images: Tensor, size: int) -> Tensor:
    """Downscale uint8 [B, 3, H, W] to uint8 [B, 3, size, size] by area averaging, rounded."""
    if images.shape[-1] == size:
        return images.contiguous()
    return F.interpolate(images.float(), size=(size, size), mode="area").round().to(torch.uint8)
