"""Image scores and image-level metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iufbench.metrics.check import require_finite
from iufbench.metrics.curve import score_curve
from iufbench.support.errors import InputError

POOL = 16


def image_score(maps: np.ndarray) -> np.ndarray:
    """The maximum of the 16x16 average-pooled anomaly map (stride 1, no padding), as UniAD and IUF.

    maps: float [N, H, W]; returns float64 [N]. Sums are float64 and made of the window's own values only
    (four doublings an axis), so a score depends on nothing outside its image; it differs from a float32
    pooling by that pooling's rounding (about 1e-6 of the value at most). A map with NaN gets the score NaN.
    Raises InputError when the maps are smaller than the window.
    """
    if min(maps.shape[1:]) < POOL:
        height, width = maps.shape[1:]
        raise InputError(
            f"image scores pool {POOL}x{POOL} windows, but the maps are {height}x{width}: "
            f"use maps of at least {POOL}x{POOL}"
        )
    return np.array([_best_window(image) for image in maps], dtype=np.float64)


def image_metrics(
    labels: Sequence[bool] | np.ndarray,
    scores: np.ndarray,
    names: Sequence[str] | None = None,
    object: str = "object",
) -> dict[str, float]:
    """auroc, ap and f1_max of one object, each in [0, 1], NaN where undefined.

    labels: [N], true is defective (from the file list, not from a resized mask); scores: float [N].
    AUROC needs a defective and a normal image; AP and F1-max need a defective one. Values below 0.5 are
    reported as they are. Raises RunError naming object and image (``names`` [N]) for a NaN or infinite score.
    """
    scores = np.asarray(scores)
    if np.shape(labels) != scores.shape:
        raise ValueError(f"{np.shape(labels)} labels for {scores.shape} scores")
    require_finite(scores, names, object)
    curve = score_curve(labels, scores)
    return {"auroc": curve.auroc(), "ap": curve.ap(), "f1_max": curve.f1_max()}


def _best_window(image: np.ndarray) -> float:
    sums = image.astype(np.float64)
    for reach in (1, 2, 4, 8):  # after each round a value is the sum of 2 * reach neighbours
        sums = sums[:-reach] + sums[reach:]
    for reach in (1, 2, 4, 8):
        sums = sums[:, :-reach] + sums[:, reach:]
    return float(sums.max()) / POOL**2
