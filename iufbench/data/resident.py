"""Frozen inputs in memory: images are decoded and sent through the backbone once, then only indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from iufbench.data.images import load_image
from iufbench.data.samples import Sample
from iufbench.errors import RunError

UNKNOWN_OBJECT = -1  # the object id of test images for learners that do not declare to use it


@dataclass
class Batch:
    """A mini-batch that Avalanche's plugins can index as ``(x, y, task)``.

    ``x`` [B, C, h, w] float32 frozen features; ``y`` [B] int64 object ids, numbered in the order in
    which experiences introduce them (``UNKNOWN_OBJECT`` where they are hidden); ``task`` [B] int64 zeros;
    ``guide`` [B, 3, g, g] uint8 images for learners that look at pixels, or None.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    guide: Tensor | None = None

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return (self.x, self.y, self.task)[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, self.y, self.task))

    @property
    def objects(self) -> Tensor:
        """``y``, for a learner that needs it: RunError when the object ids are hidden."""
        if bool((self.y == UNKNOWN_OBJECT).any()):
            raise RunError(
                "this strategy needs object ids, and the stream has none: "
                "a learner that uses them at test must declare uses.object_id_at_test"
            )
        return self.y

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        moved = (None if t is None else t.to(device, non_blocking=non_blocking) for t in self._tensors())
        return Batch(*moved)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        return Batch(*(None if t is None else t.pin_memory() for t in self._tensors()))  # type: ignore[arg-type]

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return (self.x, self.y, self.task, self.guide)

    @staticmethod
    def concatenate(batches: Sequence[Batch]) -> Batch:
        """One batch out of several, in order."""
        guides = [b.guide for b in batches if b.guide is not None]
        return Batch(
            torch.cat([b.x for b in batches]),
            torch.cat([b.y for b in batches]),
            torch.cat([b.task for b in batches]),
            torch.cat(guides) if guides else None,
        )


class ResidentData(Dataset):
    """The inputs of one experience as tensors. Carries no labels of normal or defective, no paths.

    ``features`` [N, C, h, w] stay in the precision in which they are stored; batches are float32.
    """

    def __init__(self, features: Tensor, objects: Tensor, guide: Tensor | None) -> None:
        self.features, self.objects, self.guide = features, objects, guide

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.features[index].float(), int(self.objects[index])

    def batch(self, index: Tensor) -> Batch:
        """The samples of an index tensor [B] in its order."""
        objects = self.objects[index]
        guide = None if self.guide is None else self.guide[index]
        return Batch(self.features[index].float(), objects, torch.zeros_like(objects), guide)

    def without_objects(self) -> ResidentData:
        """The same inputs with every object id hidden."""
        return ResidentData(self.features, torch.full_like(self.objects, UNKNOWN_OBJECT), self.guide)

    @staticmethod
    def concatenate(parts: Sequence[ResidentData]) -> ResidentData:
        """All samples of several, in order."""
        guides = [p.guide for p in parts if p.guide is not None]
        return ResidentData(
            torch.cat([p.features for p in parts]),
            torch.cat([p.objects for p in parts]),
            torch.cat(guides) if guides else None,
        )


class Batches:
    """Mini-batches by index-select; a new order every epoch when a generator is given.

    The last, smaller batch is kept: dropping it would silently train nothing on objects with fewer
    images than one batch.
    """

    def __init__(self, data: ResidentData, batch_size: int, generator: torch.Generator | None = None) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n = len(self.data)
        order = torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)
        for start in range(0, n, self.batch_size):
            yield self.data.batch(order[start : start + self.batch_size])


class FrozenInputs:
    """Decodes images and runs the frozen backbone over them, ``batch_size`` at a time.

    ``guide_size``: side of the small images kept for learners that look at pixels, or None.
    ``precision``: what features are rounded to and stored as; it can change scores, so it is the card's.
    """

    def __init__(
        self,
        backbone: Any,
        image_size: int,
        guide_size: int | None = None,
        batch_size: int = 16,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.backbone, self.image_size = backbone, image_size
        self.guide_size, self.batch_size, self.precision = guide_size, batch_size, precision

    @torch.no_grad()
    def load(self, samples: Sequence[Sample], objects: Sequence[int], advance: Any = None) -> ResidentData:
        """Features of ``samples``, whose object ids are ``objects``; ``advance(n)`` reports progress.

        Raises InputError naming the file when an image cannot be decoded, RunError when a feature is too
        large for ``precision``.
        """
        features: Tensor | None = None
        guides: Tensor | None = None
        for start in range(0, len(samples), self.batch_size):
            part = samples[start : start + self.batch_size]
            pixels = np.stack([load_image(s.image, self.image_size) for s in part])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            found = self.backbone.features(images).to(self.precision)
            if not torch.isfinite(found).all():
                raise RunError(
                    f"features of {part[0].image} and the images after it do not fit {self.precision}: "
                    "use --set backbone.precision=float32"
                )
            features = _put(features, found, start, len(samples))
            if self.guide_size is not None:
                guides = _put(guides, shrink(images, self.guide_size), start, len(samples))
            if advance is not None:
                advance(len(part))
        assert features is not None  # readers refuse an object without images
        return ResidentData(features, torch.tensor(objects, dtype=torch.int64), guides)


def _put(whole: Tensor | None, part: Tensor, start: int, total: int) -> Tensor:
    """``part`` into its place of [total, ...], which is made at the first part: no second copy at the end."""
    if whole is None:
        whole = torch.empty((total, *part.shape[1:]), dtype=part.dtype)
    whole[start : start + len(part)] = part
    return whole


def shrink(images: Tensor, size: int) -> Tensor:
    """uint8 [B, 3, H, W] to uint8 [B, 3, size, size] by area means, rounded."""
    if images.shape[-1] == size:
        return images.contiguous()
    return F.interpolate(images.float(), size=(size, size), mode="area").round().to(torch.uint8)
