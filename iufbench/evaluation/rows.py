"""One row of ``metrics.csv`` and one of ``scores.csv.gz``. Without torch or Avalanche."""

from __future__ import annotations

from typing import NamedTuple


class MetricRow(NamedTuple):
    """One number: a metric in [0, 1] (NaN when undefined) of one object; ``seen``: trained on by then."""

    object: str
    level: str
    metric: str
    value: float
    seen: bool


class ScoreRow(NamedTuple):
    """One test image: its path relative to the data root, label (0 normal, 1 defective) and score.

    ``routed``: the object whose memory judged it, "" when none in particular did, None for a strategy that
    does not choose between memories.
    """

    object: str
    image: str
    label: int
    score: float
    routed: str | None = None
