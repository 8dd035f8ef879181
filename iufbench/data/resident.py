"""Frozen inputs in memory: images are decoded and encoded by the backbone once, then only indexed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iufbench.data.cache.array_store import CacheUnusable
from iufbench.data.cache.entry import CHUNK
from iufbench.data.cache.features import cached_features, encode
from iufbench.data.cache.guides import cached_guides, small
from iufbench.data.cache.images import Files, Rows, cached_images
from iufbench.data.decoding import AS_SHOWN, Decoding
from iufbench.data.images import load_image
from iufbench.data.residency import Home
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import RunError
from iufbench.support.progress import Progress

UNKNOWN_OBJECT = -1  # the object id of test images for learners that do not declare its use


@dataclass
class Batch:
    """A mini-batch that Avalanche's plugins can index and unpack as ``(x, y, task)``; its length is B.

    Attributes:
        x: Frozen features, float32 [B, C, h, w].
        y: Object ids, int64 [B], in order of introduction; ``UNKNOWN_OBJECT`` where they are hidden.
        task: Zeros, int64 [B].
        guide: Images for learners that use pixels, uint8 [B, 3, g, g], or None.
        vector: Per-image feature vectors of the backbone, float32 [B, V], or None.
        old: Columns of stored images that a rehearsal learner replays with these.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    guide: Tensor | None = None
    vector: Tensor | None = None
    old: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return (self.x, self.y, self.task)[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.y, self.task))

    @property
    def objects(self) -> Tensor:
        """``y``, for learners that need object ids. Raises RunError if they are hidden."""
        if bool((self.y == UNKNOWN_OBJECT).any()):
            raise RunError(
                "this strategy needs object ids, but the stream hides them: "
                "a learner that uses them at test must declare uses.object_id_at_test"
            )
        return self.y

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        moved = (None if t is None else t.to(device, non_blocking=non_blocking) for t in self._tensors())
        return Batch(*moved)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        return Batch(*(None if t is None else t.pin_memory() for t in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return (self.x, self.y, self.task, self.guide, self.vector)

    @staticmethod
    def concatenate(batches: Sequence[Batch]) -> Batch:
        """Concatenate batches in order."""
        guides = [b.guide for b in batches if b.guide is not None]
        vectors = [b.vector for b in batches if b.vector is not None]
        return Batch(
            torch.cat([b.x for b in batches]),
            torch.cat([b.y for b in batches]),
            torch.cat([b.task for b in batches]),
            torch.cat(guides) if guides else None,
            torch.cat(vectors) if vectors else None,
        )


def as_batch(batch: Any) -> Batch:
    """Convert a mini-batch ``[x, y, guide, vector, task]`` of any loader over ``ResidentData`` to a Batch."""
    if isinstance(batch, Batch):
        return batch
    x, y, guide, vector, task = batch
    return Batch(x, y, task, _unless_empty(guide), _unless_empty(vector))


def _unless_empty(tensor: Tensor) -> Tensor | None:
    return tensor if tensor.numel() else None


class ResidentData(Dataset):
    """The inputs of one experience as tensors, without normal/defective labels and without paths.

    ``features`` [N, C, h, w] and ``vectors`` [N, V] (if the backbone provides any) keep the precision in
    which they are stored; batches are float32. They and ``guide`` [N, 3, g, g] may be on a GPU;
    ``objects`` [N] are on the CPU, where indices are drawn.
    ``ahead``: prefetch the next batch while one is used, because gathering takes time (pages of a file,
    copies to a GPU).
    """

    def __init__(
        self,
        features: Tensor,
        objects: Tensor,
        guide: Tensor | None,
        ahead: bool = False,
        vectors: Tensor | None = None,
    ) -> None:
        self.features, self.objects, self.guide, self.ahead = features, objects, guide, ahead
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, Tensor]:
        """Features, object id, guide and vector of one image; missing ones are empty tensors.

        Avalanche's loaders append the task label.
        """
        guide, vector = self.guide, self.vectors
        return (
            self.features[index].float(),
            int(self.objects[index]),
            torch.empty(0) if guide is None else guide[index],
            torch.empty(0) if vector is None else vector[index].float(),
        )

    def batch(self, index: Tensor) -> Batch:
        """Select samples by index [B], in its order, on the device of the features; pinned if they are."""
        objects = self.objects[index]
        index = index.to(self.features.device, non_blocking=True)  # else every batch waits for the GPU
        guide = None if self.guide is None else self.guide[index]
        vector = None if self.vectors is None else self.vectors[index].float()
        batch = Batch(self.features[index].float(), objects, torch.zeros_like(objects), guide, vector)
        return batch.pin_memory() if self.features.is_pinned() else batch

    def without_objects(self) -> ResidentData:
        """The same inputs with every object id hidden."""
        unknown = torch.full_like(self.objects, UNKNOWN_OBJECT)
        return ResidentData(self.features, unknown, self.guide, self.ahead, self.vectors)

    @staticmethod
    def concatenate(parts: Sequence[ResidentData]) -> ResidentData:
        """Concatenate several in order, on the device of the first."""
        device = parts[0].features.device
        guides = [p.guide.to(device) for p in parts if p.guide is not None]
        vectors = [p.vectors.to(device) for p in parts if p.vectors is not None]
        return ResidentData(
            torch.cat([p.features.to(device) for p in parts]),
            torch.cat([p.objects.cpu() for p in parts]),
            torch.cat(guides) if guides else None,
            vectors=torch.cat(vectors) if vectors else None,
        )


class Batches:
    """Mini-batches by index-select; reshuffled every epoch if a generator is given.

    The last, smaller batch is kept: dropping it would silently skip objects with fewer images than one batch.
    """

    def __init__(self, data: ResidentData, batch_size: int, generator: torch.Generator | None = None) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.data)
        order = torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)
        indices = order.split(self.batch_size)
        if not self.data.ahead:
            yield from map(self.data.batch, indices)
            return
        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(self.data.batch, indices[0])
            for index in indices[1:]:
                batch, following = following.result(), thread.submit(self.data.batch, index)
                yield batch
            yield following.result()


class Inputs(Protocol):
    """Turns the samples of an experience into the inputs of a strategy.

    ``from_files``: whether the samples are readable files.
    """

    from_files: bool

    def load(self, samples: Sequence[Sample], objects: Sequence[int], advance: Any = None) -> ResidentData:
        """Load the samples with their object ids; ``advance`` is called with the number of loaded images."""


class FrozenInputs:
    """Decodes images and encodes them with the frozen backbone, or reads both from caches.

    ``guide_size``: side of the small images kept for learners that use pixels, or None.
    ``precision``: precision to which features are rounded for storage; it affects scores and belongs to the
    card. ``decoding``: how image files are decoded. ``home``: where loaded inputs are stored.
    """

    from_files = True

    def __init__(
        self,
        backbone: Any,
        image_size: int,
        guide_size: int | None = None,
        precision: torch.dtype = torch.float32,
        decoding: Decoding = AS_SHOWN,
    ) -> None:
        self.backbone, self.image_size, self.decoding = backbone, image_size, decoding
        self.shape = backbone.shape(image_size)
        self.guide_size, self.precision = guide_size, precision
        self.home = Home()
        self._images: Rows | None = None
        self._guides: Rows | None = None
        self._features: Rows | None = None

    @property
    def image_bytes(self) -> int:
        """Size of one loaded image in bytes."""
        guide = 0 if self.guide_size is None else 3 * self.guide_size**2
        return self.shape.numbers * self.precision.itemsize + guide

    def use_cache(self, folder: Path, dataset: DataSet, progress: Progress, compare: bool = False) -> None:
        """Use the caches in ``folder`` for images and features of ``dataset``; build them if needed.

        ``compare``: recompute a sample and compare it before the caches are used. If a cache is unusable,
        this is reported and ``load`` computes the inputs itself, with the same result. Raises InputError
        naming an image that cannot be decoded, RunError as ``encode`` does.
        """
        files, size = Files(dataset), self.image_size
        said: set[str] = set()

        def attempt(cached: Any, *arguments: Any) -> Rows | None:
            try:
                return cached(folder, files, size, *arguments, progress, compare)
            except CacheUnusable as error:
                if str(error) not in said:
                    progress.say(f"{error}: continuing in memory")
                said.add(str(error))
                return None

        @functools.cache
        def pixels() -> Any:
            self._images = attempt(cached_images)
            return self._pixels

        self._features = attempt(cached_features, self.backbone, self.precision, pixels)
        if self.guide_size is not None:
            self._guides = attempt(cached_guides, self.guide_size, pixels)

    def load(self, samples: Sequence[Sample], objects: Sequence[int], advance: Any = None) -> ResidentData:
        """Load the features of ``samples`` with object ids ``objects``; ``advance(n)`` reports progress.

        Raises InputError naming the file if an image cannot be decoded, RunError if a feature overflows
        ``precision``.
        """
        paths = [s.image for s in samples]
        rows: Tensor | None = None
        guides: Tensor | None = None
        done = 0
        for part, guide in self._stored(paths) if self._features is not None else self._computed(paths):
            rows = self._put(rows, part, done, len(paths))
            if guide is not None:
                guides = self._put(guides, guide, done, len(paths))
            done += len(part)
            if advance is not None:
                advance(len(part))
        if rows is None:
            rows = torch.empty((0, *self.shape.row), dtype=self.precision)
        ahead = self.home.kind in ("pinned", "mapped")
        features, vectors = self.shape.unpack(rows)
        return ResidentData(features, torch.tensor(objects, dtype=torch.int64), guides, ahead, vectors)

    def _pixels(self, path: Path) -> np.ndarray:
        if self._images is not None:
            return self._images[path]
        return load_image(path, self.image_size, self.decoding)

    def _guide(self, path: Path, pixels: np.ndarray | None = None) -> Tensor | None:
        """The guide [1, 3, g, g] of an image, from its ``pixels`` if they are available."""
        if self.guide_size is None:
            return None
        if self._guides is not None:
            return torch.from_numpy(self._guides.of([path]))
        return small(self._pixels(path) if pixels is None else pixels, self.guide_size)

    def _computed(self, paths: Sequence[Path]) -> Iterator[tuple[Tensor, Tensor | None]]:
        encoded = encode(self.backbone, paths, self._pixels, self.precision)
        for path, (pixels, features) in zip(paths, encoded):
            yield features[None], self._guide(path, pixels)

    def _stored(self, paths: Sequence[Path]) -> Iterator[tuple[Tensor, Tensor | None]]:
        assert self._features is not None
        for start in range(0, len(paths), CHUNK):
            part = paths[start : start + CHUNK]
            guides = [g for g in map(self._guide, part) if g is not None]
            yield torch.from_numpy(self._features.of(part)), torch.cat(guides) if guides else None

    def _put(self, whole: Tensor | None, part: Tensor, start: int, total: int) -> Tensor:
        """Write ``part`` into [total, ...], which is allocated at the first part to avoid a second copy."""
        if whole is None:
            whole = self.home.empty((total, *part.shape[1:]), part.dtype)
        whole[start : start + len(part)] = part
        return whole
