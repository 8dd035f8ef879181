"""The metrics of one object from the scores and anomaly maps of its test images. Without Avalanche."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from iufbench.evaluation.rows import MetricRow, ScoreRow
from iufbench.evaluation.truth import ObjectTest
from iufbench.metrics.curve import Curve
from iufbench.metrics.image import image_metrics, kind_auroc, sample_auroc
from iufbench.metrics.pixel import pixel_metrics

IMAGE = ("auroc", "ap", "f1_max")
PIXEL = (*IMAGE, "aupro_30", "aupro_05")


def metric_rows(
    truth: ObjectTest,
    scores: np.ndarray,
    maps: np.ndarray | None,
    seen: bool,
    image: Sequence[str] = IMAGE,
    pixel: Sequence[str] = PIXEL,
    curve: Callable[[np.ndarray], Curve] | None = None,
) -> list[MetricRow]:
    """Compute all metrics of one object.

    Args:
        truth: Ground truth of its N test images.
        scores: Image scores, float [N].
        maps: Anomaly maps, float [N, S, S]; None without.
        seen: Whether the object has been trained on.
        image: Image-level metrics, of ``metrics.image.image_metrics``.
        pixel: Pixel-level metrics, of ``metrics.pixel.pixel_metrics``; none without masks or maps.
        curve: Maps masks to ``metrics.pixel.pixel_curve`` of them and the maps, if it is computed elsewhere.

    Returns:
        A row per metric, without those in ``truth.without``.

    Raises:
        RunError: A score or a map has a NaN or infinite value; the message names object and image.
    """
    names, name = truth.names, truth.object
    found = image_metrics(truth.labels, scores, names=names, object=name)
    values = {"image": {metric: found[metric] for metric in image}}
    if truth.parts is not None:
        values["image"]["auroc_sample"] = sample_auroc(truth.labels, scores, truth.parts)
    for kind, of_kind in truth.kinds.items():
        values["image"][f"auroc_{kind}"] = kind_auroc(truth.labels, scores, of_kind)
    if truth.masks is not None and maps is not None and pixel:
        limits = [int(n[6:]) / 100 for n in pixel if n.startswith("aupro_")]
        masks, aupimo = truth.masks.unpacked(), "aupimo" in pixel
        ready = None if curve is None else curve(masks)
        found = pixel_metrics(
            masks, maps, aupro_limits=limits, names=names, object=name, aupimo=aupimo, curve=ready
        )
        values["pixel"] = {metric: found[metric] for metric in pixel}
    return [
        MetricRow(name, level, metric, float(value), seen)
        for level, of_level in values.items()
        for metric, value in of_level.items()
        if metric not in truth.without
    ]


def score_rows(truth: ObjectTest, scores: np.ndarray, routed: Sequence[np.ndarray] = ()) -> list[ScoreRow]:
    """The rows of ``scores.csv.gz`` of one object, sorted by image.

    Args:
        truth: Ground truth of its N test images.
        scores: Image scores, float [N].
        routed: Ids of the objects whose memories scored the images, in parts of N in total; -1: none.

    Returns:
        A row per image.
    """
    objects: list[str | None] = [None] * len(scores)
    if routed:
        objects = [truth.objects[n] if n >= 0 else "" for n in np.concatenate(routed)]
    columns = zip(truth.names, map(int, truth.labels), map(float, scores), objects)
    rows = [ScoreRow(truth.object, *row) for row in columns]
    return sorted(rows, key=lambda row: row.image)  # not in stream order
