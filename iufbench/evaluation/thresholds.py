"""Decision thresholds of a run, from the scores of its calibration images. Pure functions, numpy only.

Every object has two: *frozen*, from the scores right after the object was learnt, and *own*, from the scores
after the current experience. Pixel thresholds follow the same two times with the rule for pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from iufbench.evaluation.rows import CalibrationRow
from iufbench.metrics.thresholds import (
    Rule,
    decisions,
    false_alarms_at_recall,
    pooled_pixel_threshold,
    recall_at_false_alarms,
    threshold,
)


class Thresholds(NamedTuple):
    """Thresholds for image scores and for pixels of anomaly maps; higher values are alarms."""

    image: float
    pixel: float


def calibration_rows(
    name: str, images: Sequence[str], scores: np.ndarray, maps: np.ndarray
) -> list[CalibrationRow]:
    """The record of the calibration images of object ``name``: scores [N], and mean and population standard
    deviation of the pixels of each map [N, H, W].
    """
    rows = []
    for image, score, pixels in zip(images, scores, maps):
        values = np.asarray(pixels, dtype=np.float64)
        rows.append(CalibrationRow(name, image, float(score), float(values.mean()), float(values.std())))
    return sorted(rows, key=lambda row: row.image)


def thresholds_of(rows: Iterable[CalibrationRow], rule: Rule) -> Thresholds:
    """The thresholds from some calibration images: of one object, or pooled over all."""
    rows = list(rows)
    pixels = pooled_pixel_threshold([r.pixel_mean for r in rows], [r.pixel_sd for r in rows])
    return Thresholds(threshold([r.score for r in rows], rule), pixels)


def by_object(rows: Iterable[CalibrationRow]) -> dict[str, list[CalibrationRow]]:
    """The rows of each object, in the order of their first rows."""
    groups: dict[str, list[CalibrationRow]] = {}
    for row in rows:
        groups.setdefault(row.object, []).append(row)
    return groups


def frozen_thresholds(experiences: Iterable[Sequence[CalibrationRow]], rule: Rule) -> dict[str, Thresholds]:
    """Object -> thresholds of the first experience in which its calibration images were scored.

    ``experiences``: the rows recorded after each experience; objects are scored once they are learnt.
    """
    found: dict[str, Thresholds] = {}
    for rows in experiences:
        for name, own in by_object(rows).items():
            if name not in found:
                found[name] = thresholds_of(own, rule)
    return found


def image_values(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The threshold-free image metrics of one object at operating points."""
    return {
        "recall_at_fpr_05": recall_at_false_alarms(labels, scores, 0.05),
        "fpr_at_recall_95": false_alarms_at_recall(labels, scores, 0.95),
    }


def image_values_at(
    labels: np.ndarray, scores: np.ndarray, frozen: float, own: float, oracle: float
) -> dict[str, float]:
    """The image metrics of one object at its frozen and own thresholds, and at the threshold of the best F1
    when it was learnt (an oracle).
    """
    then, now = decisions(labels, scores, frozen), decisions(labels, scores, own)
    return {
        "recall_frozen": then["recall"],
        "false_alarm_frozen": then["false_alarm"],
        "f1_frozen": then["f1"],
        "recall_own": now["recall"],
        "false_alarm_own": now["false_alarm"],
        "f1_transferred": decisions(labels, scores, oracle)["f1"],
    }
