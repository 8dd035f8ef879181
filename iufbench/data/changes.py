"""Data sets modified by a stream: defective images moved into training, and drifting images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iufbench.cards.streams import Stream
from iufbench.data.cache import pictures
from iufbench.data.images import read_image
from iufbench.data.masks import read_mask
from iufbench.data.readers.reading import hashed_order
from iufbench.data.samples import DataSet, Sample
from iufbench.support.errors import InputError
from iufbench.support.folders import cache_folder

VERSION = 1  # incremented when a drift produces different pixels
STRETCH = 224  # translations on a card are pixels of an image of this size


def contaminated(dataset: DataSet, stream: Stream) -> DataSet:
    """Move defective images of every object from its test set into training, where they count as normal.

    They make up ``stream.percent`` of the object's training images. A hash of the file names selects them
    independently of the seed, so that the test set is the same for all runs. Defective training images of the
    data set itself are used first; those not needed are left out.

    Raises InputError if an object has too few defective images: at least one must stay in the test set.
    """
    moved: dict[Path, Sample] = {}
    unused: set[Path] = set()
    counts = []
    for name in dataset.objects:
        normal = [s for s in dataset.select("train", (name,)) if s.label == 0]
        own = [s for s in dataset.select("train", (name,)) if s.label == 1]
        tested = [s for s in dataset.select("test", (name,)) if s.label == 1]
        wanted = max(1, round(len(normal) * stream.percent / (100 - stream.percent)))
        if wanted > len(own) + len(tested) - 1:
            raise InputError(
                f"stream '{stream.id}': {stream.percent:g} % of the training images of {name} are {wanted} "
                f"defective ones; it has {len(own) + len(tested)}, and one must stay in the test set"
            )
        ordered = [*_by_hash(own, dataset, stream), *_by_hash(tested, dataset, stream)]
        moved |= {s.image: replace(s, split="train") for s in ordered[:wanted]}
        unused |= {s.image for s in own if s.image not in moved}
        counts.append(f"{name} {wanted} of {len(normal) + wanted}")
    samples = tuple(moved.get(s.image, s) for s in dataset.samples if s.image not in unused)
    note = f"contaminated training, defective images: {', '.join(counts)}"
    return replace(dataset, samples=samples, noisy_training=True, notes=(*dataset.notes, note))


def _by_hash(samples: Sequence[Sample], dataset: DataSet, stream: Stream) -> list[Sample]:
    names = {s.image.relative_to(dataset.root).as_posix(): s for s in samples}
    return [names[name] for name in hashed_order(names, "contaminated: ")]


def column(name: str, level: int) -> str:
    """The name of an object's images at a level of a drift; 0 is unchanged."""
    return f"{name}@{level}"


def drifted(dataset: DataSet, name: str, stream: Stream) -> DataSet:
    """Object ``name`` at every level of a drift, each level as a separate object, written to the cache.

    Level 0 has the unchanged images. Every image is transformed independently with its own generator; a
    geometric transform also applies to the mask. Images are PNG files in the cache folder, written once.

    Raises InputError as ``read_image`` and ``read_mask`` do, RunError as ``obtain_pictures`` does.
    """
    identity = json.dumps([VERSION, dataset.fingerprint(), name, stream.settings], sort_keys=True)
    root = cache_folder() / pictures.KIND / hashlib.sha256(identity.encode()).hexdigest()[:16]
    source = [s for s in dataset.samples if s.object == name]
    levels = range(len(stream.levels) + 1)
    pictures.obtain_pictures(root, dataset.root, _draws(source, dataset, stream))
    samples = [
        replace(
            s, object=column(name, k), image=root / _place(s, dataset, k), more_masks=(),
            mask=None if s.mask is None else root / _place(s, dataset, k, "mask"),
        )
        for k in levels
        for s in source
    ]  # fmt: skip
    return replace(
        dataset,
        root=root,
        objects=tuple(column(name, k) for k in levels),
        samples=tuple(samples),
        orders={},
        identity=identity,
        made_from=dataset.root,
    )


def _place(sample: Sample, dataset: DataSet, level: int, kind: str = "image") -> str:
    name = sample.image.relative_to(dataset.root).with_suffix("").as_posix()
    return f"{level}/{kind}/{name}{sample.image.suffix[1:]}.png"


def _draws(source: Sequence[Sample], dataset: DataSet, stream: Stream) -> dict[str, pictures.Draw]:
    """For every file of a drift, in the order in which each image is read once, a function that makes it."""

    @lru_cache(maxsize=1)
    def read(sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        mask = None if sample.mask is None else read_mask(sample, dataset.decoding).astype(np.uint8) * 255
        return read_image(sample.image, dataset.decoding), mask

    @lru_cache(maxsize=1)
    def changed(sample: Sample, level: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        seed = f"{stream.id} {level} {sample.image.relative_to(dataset.root).as_posix()}"
        return change(*read(sample), stream, level, seed)

    def draw(sample: Sample, level: int, part: Literal[0, 1]) -> NDArray[np.uint8]:
        found = changed(sample, level)[part]
        assert found is not None
        return found

    draws: dict[str, pictures.Draw] = {}
    for sample in source:
        for level in range(len(stream.levels) + 1):
            draws[_place(sample, dataset, level)] = partial(draw, sample, level, 0)
            if sample.mask is not None:
                draws[_place(sample, dataset, level, "mask")] = partial(draw, sample, level, 1)
    return draws


def change(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8] | None, stream: Stream, level: int, seed: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Transform an image and its mask to a level of a drift.

    An image whose defect a geometric transform would move out of the frame is returned unchanged.

    Args:
        pixels: uint8 [H, W, 3].
        mask: uint8 [H, W], or None.
        stream: The drift.
        level: 0 returns image and mask unchanged.
        seed: Any text; seeds the random choices within a level (a factor in its range, a direction).

    Returns:
        The transformed image and mask.
    """
    if level == 0:
        return pixels, mask
    import torch

    digest = hashlib.sha256(seed.encode("utf-8", "surrogateescape")).digest()
    draw = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    values = stream.levels[level - 1]
    if stream.transform == "geometry":
        previous = stream.levels[level - 2] if level > 1 else (0.0,) * 4
        move = _move(values, previous, draw, min(pixels.shape[:2]))
        moved = None if mask is None else move(torch.from_numpy(mask.copy())[None], False)[0].numpy()
        if moved is not None and not moved.any():
            return pixels, mask
        return move(image, True).permute(1, 2, 0).numpy(), moved
    changed = _TRANSFORMS[str(stream.transform)](image, values, draw)
    return changed.permute(1, 2, 0).contiguous().numpy(), mask


def _color(image: Any, values: Sequence[float], draw: np.random.Generator) -> Any:
    from torchvision.transforms.v2 import functional as F

    factor = 1 + draw.choice((-1, 1)) * draw.uniform(values[0], values[1])
    return F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(image, factor), factor), factor)


def _blur(image: Any, values: Sequence[float], draw: np.random.Generator) -> Any:
    from torchvision.transforms.v2 import functional as F

    return F.gaussian_blur(image, [int(values[0])] * 2, [float(values[1])] * 2)


def _lighting(image: Any, values: Sequence[float], draw: np.random.Generator) -> Any:
    from torchvision.transforms.v2 import functional as F

    return F.adjust_brightness(image, float(values[0]))


def _noise(image: Any, values: Sequence[float], draw: np.random.Generator) -> Any:
    import torch

    noise = torch.from_numpy(draw.normal(0.0, 255 * values[0], tuple(image.shape)).astype(np.float32))
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def _jpeg(image: Any, values: Sequence[float], draw: np.random.Generator) -> Any:
    from torchvision.transforms.v2 import functional as F

    return F.jpeg(image, int(values[0]))


_TRANSFORMS: dict[str, Callable[[Any, Sequence[float], np.random.Generator], Any]] = {
    "color": _color,
    "blur": _blur,
    "lighting": _lighting,
    "noise": _noise,
    "jpeg": _jpeg,
}


def _move(
    values: Sequence[float], previous: Sequence[float], draw: np.random.Generator, side: int
) -> Callable[[Any, bool], Any]:
    """An affine map with magnitudes between those of the previous level and this one, in any direction."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    def amount(index: int) -> float:
        return float(draw.choice((-1, 1)) * draw.uniform(previous[index], values[index]))

    angle, scale, shear = amount(0), 1 + amount(2), amount(3)
    shift = [amount(1) * side / STRETCH, amount(1) * side / STRETCH]

    def move(image: Any, smooth: bool) -> Any:
        mode = InterpolationMode.BILINEAR if smooth else InterpolationMode.NEAREST
        return F.affine(image, angle, shift, scale, [shear], interpolation=mode)

    return move
