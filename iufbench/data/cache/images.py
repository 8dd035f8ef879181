"""The cache of decoded images: uint8 at the size that a run uses, one entry per data set and size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import PIL

from iufbench.data.cache.array_store import obtain
from iufbench.data.cache.entry import CHUNK, Spec, Stored
from iufbench.data.decoding import Decoding
from iufbench.data.images import load_image
from iufbench.data.samples import DataSet
from iufbench.support.processes import in_processes
from iufbench.support.progress import Progress

PREPROCESSING = "rgb8 square bilinear 2"  # incremented when load_image produces different pixels


class Rows:
    """A cache entry with a row for each image: ``rows[path]`` [*shape], ``rows.of(paths)`` [B, *shape]."""

    def __init__(self, stored: Stored, paths: Sequence[Path]) -> None:
        self._stored, self._number = stored, {path: i for i, path in enumerate(paths)}

    def __getitem__(self, path: Path) -> np.ndarray:
        return self._stored[self._number[path]]

    def of(self, paths: Sequence[Path]) -> np.ndarray:
        return np.stack([self[path] for path in paths])


class Files:
    """The images that a run on ``dataset`` can read, sorted by path, and hashes that identify them.

    ``names`` is a hash of the root and the relative paths, ``state`` also covers sizes and modification
    times: it changes if a file is replaced.
    """

    def __init__(self, dataset: DataSet) -> None:
        self.label, self.decoding = dataset.name, dataset.decoding
        self.root = dataset.root.resolve()
        noisy = dataset.noisy_training
        usable = {s.image for s in dataset.samples if noisy or s.split == "test" or s.label == 0}
        self.paths = sorted(usable)
        names, states = [], []
        for path in self.paths:
            name, status = path.relative_to(dataset.root).as_posix(), path.stat()
            names.append(f"{name}\n")
            states.append(f"{name}:{status.st_size}:{status.st_mtime_ns}\n")
        self.names, self.state = _sha256(str(self.root), *names), _sha256(str(self.root), *states)


def _sha256(*texts: str) -> str:
    return hashlib.sha256("".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


def image_spec(files: Files, size: int) -> Spec:
    """The cache entry with ``files`` as uint8 [N, size, size, 3]."""
    return Spec(
        kind="images",
        label=f"{files.label}-{size}",
        # Two Pillows may decode a JPEG differently, so each has its own entry.
        identity={
            "root": str(files.root), "files": files.names, "preprocessing": PREPROCESSING,
            "decoding": files.decoding.pixels, "pillow": PIL.__version__,
        },
        version=files.state,
        rows=len(files.paths),
        shape=(size, size, 3),
        dtype="uint8",
    )  # fmt: skip


def cached_images(folder: Path, files: Files, size: int, progress: Progress, compare: bool = False) -> Rows:
    """Return images as uint8 [size, size, 3] RGB, decoded on all cores if they are not cached.

    Args:
        folder: The cache folder.
        files: The images.
        size: Side in pixels.
        progress: Shows a bar.
        compare: As for ``obtain``.

    Returns:
        One row per image.

    Raises:
        InputError: An image cannot be decoded; the message names it.
        CacheUnusable: As for ``obtain``.
    """

    def produce(rows: Sequence[int]) -> Iterator[np.ndarray]:
        paths = [files.paths[row] for row in rows]
        chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
        done = 0
        try:
            for pixels in in_processes(partial(decode, size=size, how=files.decoding), chunks):
                yield pixels
                done += 1
        except BrokenProcessPool:
            progress.say("a decoding process died: continuing with one process")
            for chunk in chunks[done:]:
                yield decode(chunk, size, files.decoding)

    return Rows(obtain(folder, image_spec(files, size), produce, progress, compare), files.paths)


def decode(paths: Sequence[Path], size: int, how: Decoding) -> np.ndarray:
    """Images as uint8 [len(paths), size, size, 3]."""
    return np.stack([load_image(path, size, how) for path in paths])
