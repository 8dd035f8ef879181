"""Image scores and image-level metrics."""

from __future__ import annotations

import math
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


def grouped_image_metrics(
    labels: np.ndarray, scores: np.ndarray, group: np.ndarray, groups: int
) -> dict[str, list[float]]:
    """Compute ``image_metrics`` of many groups from a single sort, with the same bits.

    Args:
        labels: bool [N], true is defective.
        scores: Image scores of all groups, float [N].
        group: Group of each image, int [N] in 0..groups-1; the images of a group need not be adjacent.
        groups: Number of groups.

    Returns:
        ``auroc``, ``ap`` and ``f1_max``: one value per group, NaN where undefined.

    Raises:
        RunError: A score is NaN or infinite.

    Example:
        >>> scores = np.array([0.1, 0.2, 0.4, 0.3])
        >>> grouped_image_metrics(np.array([False, True, False, True]), scores, np.array([0, 0, 1, 1]), 2)
        {'auroc': [1.0, 0.0], 'ap': [1.0, 0.5], 'f1_max': [1.0, 0.6666666666666666]}
    """
    require_finite(scores, None, "several groups")
    order = np.lexsort((scores, group))
    scores, group = scores[order], group[order]
    hits_before = np.concatenate([[0], labels[order].cumsum()])
    end = np.bincount(group, minlength=groups).cumsum()
    positives = np.diff(hits_before[end], prepend=0)
    normals = np.diff(end, prepend=0) - positives
    # Equal scores of a group are one threshold, from ``first`` to before ``last``.
    new = np.ones(len(scores), bool)
    np.not_equal(scores[1:], scores[:-1], out=new[1:])
    new[1:] |= group[1:] != group[:-1]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(scores))[: len(first)]
    at_positive = hits_before[last] > hits_before[first]
    first, last = first[at_positive], last[at_positive]
    group = group[first]
    hits = hits_before[end[group]] - hits_before[first]
    equal = hits_before[last] - hits_before[first]
    at_or_above = end[group] - first - hits
    above = end[group] - last - (hits - equal)
    lost = (above + at_or_above) * equal
    precise = equal * (hits / (hits + at_or_above))
    f1 = 2 * hits / (hits + at_or_above + positives[group])
    bounds = np.searchsorted(group, np.arange(groups + 1))
    halves = np.diff(np.append(0, lost.cumsum())[bounds]).tolist()  # half pairs
    auroc = [(p - x) / p if p else math.nan for p, x in zip((2 * positives * normals).tolist(), halves)]
    ap, f1_max = np.full((2, groups), np.nan)
    some = np.flatnonzero(positives)
    for k, a, b in zip(some.tolist(), bounds[some].tolist(), bounds[some + 1].tolist()):
        ap[k] = np.add.reduce(precise[a:b]) / positives[k]  # reduceat would round otherwise
    if some.size:
        f1_max[some] = np.maximum.reduceat(f1, bounds[some])
    return {"auroc": auroc, "ap": ap.tolist(), "f1_max": f1_max.tolist()}


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
