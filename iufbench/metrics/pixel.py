"""Pixel-level metrics of one object from its anomaly maps and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from iufbench.metrics.check import require_finite
from iufbench.metrics.curve import Curve

CHUNK_PIXELS = 1 << 21
"""Pixels copied and sorted at once: limits the memory used besides the maps and does not affect values."""

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def pixel_metrics(
    masks: np.ndarray,
    maps: np.ndarray,
    aupro_limits: Sequence[float] = (0.3, 0.05),
    names: Sequence[str] | None = None,
    object: str = "object",
    aupimo: bool = False,
    curve: Curve | None = None,
) -> dict[str, float]:
    """Compute the pixel-level metrics of one object.

    All pixels of normal images are included. Regions are the 8-connected components of each mask at the
    resolution of the maps.

    Args:
        masks: bool [N, H, W], true is defective.
        maps: float [N, H, W], higher is more anomalous; compared exactly in their own precision.
        aupro_limits: Upper FPR limits of AUPRO, in (0, 1].
        names: Image names [N] for messages, or None.
        object: Name of the object, for messages.
        aupimo: Also compute ``aupimo``.
        curve: ``pixel_curve`` of these masks and maps, if it is known.

    Returns:
        ``auroc``, ``ap``, ``f1_max`` and one ``aupro_NN`` per limit (0.3 -> ``aupro_30``), each in [0, 1],
        NaN where undefined.

    Raises:
        RunError: A map has a NaN or infinite value; the message names object and image.
    """
    _check(masks, maps)
    for start, part in _chunks(maps):
        require_finite(maps[part], names, object, start)
    curve = pixel_curve(masks, maps) if curve is None else curve
    values = {"auroc": curve.auroc(), "ap": curve.ap(), "f1_max": curve.f1_max()}
    values |= {f"aupro_{round(100 * limit):02d}": curve.aupro(limit) for limit in aupro_limits}
    if aupimo:
        values["aupimo"] = float(aupimo_per_image(masks, maps).mean()) if masks.any() else float("nan")
    return values


def pixel_curve(masks: np.ndarray, maps: np.ndarray) -> Curve:
    """Build the curve over all pixels of one object, with regions; arguments as in ``pixel_metrics``."""
    curve = defective_curve(masks, maps)
    for _, part in _chunks(maps):
        curve.add_normals(maps[part][~masks[part]])
    return curve


def defective_curve(masks: np.ndarray, maps: np.ndarray) -> Curve:
    """The curve of ``pixel_curve`` before any normal pixel is counted."""
    from scipy import ndimage  # not for the commands that only read results

    scores, regions, n_regions = [], [], 0
    for mask, image in zip(masks, maps):
        if mask.any():
            labelled, count = ndimage.label(mask, EIGHT_CONNECTED)
            scores.append(image[mask])
            regions.append(labelled[mask].astype(np.int64) + (n_regions - 1))
            n_regions += count
    return Curve(np.concatenate(scores or [np.empty(0)]), np.concatenate(regions or [np.empty(0, np.int64)]))


def aupimo_per_image(
    masks: np.ndarray, maps: np.ndarray, bounds: tuple[float, float] = (1e-5, 1e-4)
) -> np.ndarray:
    """Compute AUPIMO of every image with a defect (Bertoldo et al., BMVC 2024).

    AUPIMO is the mean true-positive rate of an image over ln(FPR) between L and U, where the FPR is computed
    over the pixels of images without defects. In closed form, with F(s) the fraction of those pixels >= s:
    mean over the defective pixels of clip((ln U - ln max(L, F(s))) / ln(U / L), 0, 1).
    The value is coarse if L times the number of normal pixels is below about 30.

    Args:
        masks: bool [N, H, W], true is defective.
        maps: float [N, H, W], higher is more anomalous.
        bounds: FPR bounds (L, U).

    Returns:
        float64 [number of images with a defect], in [0, 1]; NaN without normal images.
    """
    _check(masks, maps)
    lower, upper = bounds
    defective = masks.any(axis=(1, 2))
    normals = np.sort(maps[~defective], axis=None)
    if not normals.size:
        return np.full(int(defective.sum()), np.nan)
    values = []
    for mask, image in zip(masks[defective], maps[defective]):
        rate = (normals.size - np.searchsorted(normals, np.sort(image[mask]))) / normals.size
        hit = (np.log(upper) - np.log(np.maximum(rate, lower))) / np.log(upper / lower)
        values.append(float(np.clip(hit, 0, 1).mean()))
    return np.array(values)


def _check(masks: np.ndarray, maps: np.ndarray) -> None:
    if masks.dtype != bool or maps.dtype.kind != "f":
        raise TypeError(f"masks must be bool and maps float, not {masks.dtype} and {maps.dtype}")
    if masks.shape != maps.shape or maps.ndim != 3:
        raise ValueError(f"masks {masks.shape} and maps {maps.shape} must have the same shape [N, H, W]")


def _chunks(maps: np.ndarray) -> Iterator[tuple[int, slice]]:
    images = max(1, CHUNK_PIXELS // max(1, maps[0].size)) if len(maps) else 1
    for start in range(0, len(maps), images):
        yield start, slice(start, start + images)
