"""The row types of ``metrics.csv``, ``scores.csv.gz`` and ``calibration.csv.gz``.

Imports neither torch nor Avalanche.
"""

from __future__ import annotations

from typing import NamedTuple


class MetricRow(NamedTuple):
    """One metric of one object, in [0, 1] (NaN if undefined); ``seen``: the object has been trained on."""

    object: str
    level: str
    metric: str
    value: float
    seen: bool


class ScoreRow(NamedTuple):
    """One test image: its path relative to the data root, label (0 normal, 1 defective) and score.

    ``routed``: the object whose memory scored the image, "" for no particular object, None for a strategy
    that does not choose between memories.
    """

    object: str
    image: str
    label: int
    score: float
    routed: str | None = None


class CalibrationRow(NamedTuple):
    """One normal image that thresholds are calibrated on: its score, and mean and population standard
    deviation of the pixels of its anomaly map."""

    object: str
    image: str
    score: float
    pixel_mean: float
    pixel_sd: float
