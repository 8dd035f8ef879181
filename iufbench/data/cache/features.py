"""Features of the frozen backbone: the only way to compute them, and their cache on disk.

Each image is encoded alone and on one thread. Its features therefore do not depend on other images, on the
number of threads or cores, or on whether they come from the cache. (The summation order of convolutions
depends on batch size and number of threads, and differences that survive rounding to float16 would change
scores.) Several images are encoded in parallel, with one thread each.

On a GPU, images are decoded by threads ahead of it and encoded in batches that always have ``GPU_BATCH``
images, the last one filled up with zeros: the same kernels for all images, cached or encoded live.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from iufbench.data.cache.array_store import obtain
from iufbench.data.cache.entry import CHUNK, Spec
from iufbench.data.cache.images import Files, Rows, image_spec
from iufbench.support.errors import RunError
from iufbench.support.processes import cores
from iufbench.support.progress import Progress
from iufbench.support.provenance import processor

GPU_BATCH = 32
AHEAD = 4  # images in work per thread: enough to keep it busy, too few to fill the memory


def encode(
    backbone: Any,
    paths: Iterable[Any],
    pixels: Callable[[Any], np.ndarray],
    precision: torch.dtype,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Encode images in order: on a GPU in batches, else as many in parallel as torch has threads, one each.

    Args:
        backbone: The frozen backbone.
        paths: The images.
        pixels: Loads an image by its path, uint8 [S, S, 3].
        precision: Precision of the features.

    Yields:
        Pixels and feature row (laid out as in ``FeatureShape``, on the CPU) of each image.

    Raises:
        RunError: Features overflow ``precision``; the message names the image.
        Exception: Any exception of ``pixels``.
    """
    if backbone.device.type == "cuda":
        yield from in_batches(backbone, paths, pixels, precision)
        return

    @torch.no_grad()
    def one(path: Any) -> tuple[np.ndarray, Tensor]:
        image = pixels(path)
        features = backbone.encode(torch.from_numpy(np.array(image[None])).permute(0, 3, 1, 2))
        found = backbone.shape(image.shape[0]).pack(features)[0].to(precision)
        return image, _checked(found, path, precision)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    rest = iter(paths)
    try:
        waiting = [pool.submit(one, path) for path in itertools.islice(rest, AHEAD * threads)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(one, path) for path in itertools.islice(rest, 1)]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@torch.no_grad()
def in_batches(
    backbone: Any,
    paths: Iterable[Any],
    pixels: Callable[[Any], np.ndarray],
    precision: torch.dtype,
    size: int = GPU_BATCH,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """As ``encode``, in batches of ``size`` images, with threads that decode the next ones meanwhile."""
    rest = iter(paths)
    with ThreadPoolExecutor(min(size, cores())) as pool:

        def begun() -> list[tuple[Any, Future[np.ndarray]]]:
            return [(path, pool.submit(pixels, path)) for path in itertools.islice(rest, size)]

        waiting = deque(batch for batch in (begun(), begun()) if batch)
        while waiting:
            batch = waiting.popleft()
            images = [decoding.result() for _, decoding in batch]
            if following := begun():
                waiting.append(following)
            whole = np.zeros((size, *images[0].shape), np.uint8)
            np.stack(images, out=whole[: len(images)])
            features = backbone.encode(torch.from_numpy(whole).permute(0, 3, 1, 2))
            rows = backbone.shape(whole.shape[1]).pack(features)[: len(images)].to(precision).cpu()
            for (path, _), image, row in zip(batch, images, rows):
                yield image, _checked(row, path, precision)


def _checked(row: Tensor, path: Any, precision: torch.dtype) -> Tensor:
    if not torch.isfinite(row).all():
        raise RunError(f"features of {path} do not fit {precision}: use --set backbone.precision=float32")
    return row.cpu()


def encode_images(backbone: Any, precision: torch.dtype, images: Tensor) -> Tensor:
    """Compute the features [B, C, h, w] of uint8 images [B, 3, S, S] with ``encode``, on the CPU."""
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    found = encode(backbone, range(len(pixels)), lambda number: pixels[number], precision)
    return backbone.shape(images.shape[-1]).unpack(torch.stack([row for _, row in found])).map


def feature_spec(files: Files, size: int, backbone: Any, precision: torch.dtype) -> Spec:
    """The cache entry with the features of ``files``, one row per image."""
    images, given = image_spec(files, size), backbone.spec
    # What older entries could not have is named only where it is not as it was for them.
    groups = None if given.groups is None else [list(g) for g in given.groups]  # as a manifest holds them
    newer = {"groups": groups, "norm": given.norm, "vector": given.vector, "stride": given.stride}
    usual = {"groups": None, "norm": False, "vector": "none", "stride": None}
    return Spec(
        kind="features",
        label=f"{images.label}-{backbone.spec.name}",
        identity={
            **images.identity, "image_size": size, "backbone": backbone.spec.name,
            "weights": backbone.weights_sha256, "layers": list(backbone.spec.layers),
            "padding": backbone.spec.padding, "machine": machine(backbone.device),
            "torch": torch.__version__, "timm": timm.__version__,
            **{key: value for key, value in newer.items() if value != usual[key]},
        },
        version=images.version,
        rows=images.rows,
        shape=backbone.shape(size).row,
        dtype=str(precision).removeprefix("torch."),
    )  # fmt: skip


def machine(device: torch.device) -> str:
    """The hardware and software that determine the order of floating-point summation."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, float32 in batches of {GPU_BATCH}"
    return f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"


def cached_features(
    folder: Path,
    files: Files,
    size: int,
    backbone: Any,
    precision: torch.dtype,
    pixels: Callable[[], Callable[[Path], np.ndarray]],
    progress: Progress,
    compare: bool = False,
) -> Rows:
    """Return the features of images, computed with ``encode`` if they are not cached.

    Args:
        folder: The cache folder.
        files: The images.
        size: Side of the decoded images in pixels.
        backbone: The frozen backbone.
        precision: Precision of the features.
        pixels: Called only if features must be computed; returns a function that reads an image.
        progress: Shows a bar.
        compare: As for ``obtain``.

    Returns:
        One row per image.

    Raises:
        CacheUnusable: As for ``obtain``.
        RunError: As for ``encode``.
    """

    def produce(rows: Sequence[int]) -> Iterator[np.ndarray]:
        return _chunks(encode(backbone, [files.paths[row] for row in rows], pixels(), precision))

    spec = feature_spec(files, size, backbone, precision)
    return Rows(obtain(folder, spec, produce, progress, compare), files.paths)


def _chunks(encoded: Iterator[tuple[np.ndarray, Tensor]]) -> Iterator[np.ndarray]:
    while chunk := [features.numpy() for _, features in itertools.islice(encoded, CHUNK)]:
        yield np.stack(chunk)
