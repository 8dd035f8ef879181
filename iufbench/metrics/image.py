"""Image scores and image-level metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iufbench.metrics.check import require_finite
from iufbench.metrics.curve import score_curve
from iufbench.support.errors import InputError

POOL = 16


RULES = ("pooled_max", "max", "top1pct")


def image_score(maps: np.ndarray, rule: str = "pooled_max") -> np.ndarray:
    """Compute image scores from anomaly maps.

    Sums are float64 over the values of the window only (four doublings per axis), so a score depends on its
    own image alone; it differs from float32 pooling by rounding (relative error of about 1e-6 at most).

    Args:
        maps: Anomaly maps, float [N, H, W].
        rule: ``pooled_max``, the maximum of the 16x16 average-pooled map (stride 1, no padding), as in UniAD
            and IUF; ``max``, the highest pixel, as in DINOSaur; ``top1pct``, the mean of the highest 1 % of
            the pixels (rounded down, at least one), as in Dinomaly and GCR.

    Returns:
        Scores, float64 [N]; NaN for a map with NaN.

    Raises:
        InputError: The maps are smaller than the pooling window.
        ValueError: The rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"score rule {rule!r} is unknown; known are {', '.join(RULES)}")
    if rule != "pooled_max":
        pixels = np.asarray(maps, dtype=np.float64).reshape(len(maps), -1)
        count = 1 if rule == "max" else max(1, pixels.shape[1] // 100)
        return np.sort(pixels, axis=1)[:, -count:].mean(axis=1)
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
    """Compute the image-level metrics of one object.

    AUROC needs a defective and a normal image; AP and F1-max need a defective one. AUROC below 0.5 is not
    flipped.

    Args:
        labels: [N], true is defective (from the file list, not from a resized mask).
        scores: Image scores, float [N].
        names: Image names [N] for messages, or None.
        object: Name of the object, for messages.

    Returns:
        ``auroc``, ``ap`` and ``f1_max``, each in [0, 1], NaN where undefined.

    Raises:
        RunError: A score is NaN or infinite; the message names object and image.
    """
    scores = np.asarray(scores)
    if np.shape(labels) != scores.shape:
        raise ValueError(f"{np.shape(labels)} labels for {scores.shape} scores")
    require_finite(scores, names, object)
    curve = score_curve(labels, scores)
    return {"auroc": curve.auroc(), "ap": curve.ap(), "f1_max": curve.f1_max()}


def sample_auroc(labels: Sequence[bool] | np.ndarray, scores: np.ndarray, parts: Sequence[str]) -> float:
    """Compute AUROC over physical parts that are shown in several images (Real-IAD's sample-level AUROC).

    The score of a part is the maximum over its images; a part is defective if any of its images is.

    Args:
        labels: [N], true is defective.
        scores: Image scores, float [N].
        parts: Part of each image [N].

    Returns:
        AUROC in [0, 1], NaN if all parts are normal or all are defective.
    """
    defective: dict[str, bool] = {}
    highest: dict[str, float] = {}
    for part, label, score in zip(parts, labels, scores):
        defective[part] = defective.get(part, False) or bool(label)
        highest[part] = max(highest.get(part, -np.inf), float(score))
    return score_curve(np.array(list(defective.values())), np.array(list(highest.values()))).auroc()


def kind_auroc(labels: Sequence[bool] | np.ndarray, scores: np.ndarray, of_kind: np.ndarray) -> float:
    """AUROC of the defective images of one kind (bool ``of_kind`` [N]) against all normal images."""
    labels = np.asarray(labels, dtype=bool)
    shown = of_kind | ~labels
    return score_curve(labels[shown], np.asarray(scores)[shown]).auroc()


def _best_window(image: np.ndarray) -> float:
    sums = image.astype(np.float64)
    for reach in (1, 2, 4, 8):  # after each round a value is the sum of 2 * reach neighbours
        sums = sums[:-reach] + sums[reach:]
    for reach in (1, 2, 4, 8):
        sums = sums[:, :-reach] + sums[:, reach:]
    return float(sums.max()) / POOL**2
