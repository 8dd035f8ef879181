"""Values of a run directory that differ from those recomputed from its own files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from iufbench.reporting.store import Run
from iufbench.support.nested import differing, flat

Key = tuple[str, str, str]  # object, level, metric


@dataclass(frozen=True)
class Difference:
    """A recomputed value that differs from the run directory; NaN means missing or undefined."""

    experience: int
    object: str
    level: str
    metric: str
    stored: float
    again: float

    def __str__(self) -> str:
        place = f"experience {self.experience}, {self.object}, {self.level} {self.metric}"
        return f"{place}: stored {self.stored!r}, now {self.again!r}"


def compared(experience: int, stored: Mapping[Key, float], again: Mapping[Key, float]) -> list[Difference]:
    """The values that differ between two sets, compared bit by bit; NaN stands for a missing value."""
    keys = {**stored, **again}
    one, other = ({key: float(values.get(key, np.nan)) for key in keys} for values in (stored, again))
    return [Difference(experience, *key, *pair) for key, pair in differing(one, other).items()]


def image_differences(run: Run) -> list[Difference]:
    """Image metrics that differ between ``scores.csv.gz`` and ``metrics.csv`` or are only in one of them."""
    found: dict[int, dict[Key, float]] = defaultdict(dict)
    for experience, name, values in run.image_metrics():
        found[experience] |= {(name, "image", metric): float(value) for metric, value in values.items()}
    # Metrics of subsets (``auroc_sample``, ``auroc_logical``) need more information than the scores.
    alone = ~run.metrics["metric"].str.startswith("auroc_")
    known = run.metrics[(run.metrics["level"] == "image") & alone]
    differences = []
    for number in range(len(run.experiences)):
        rows = known[known["experience"] == number].itertuples()
        stored = {(r.object, "image", r.metric): r.value for r in rows}
        differences += compared(number, stored, found[number])
    return differences


def summary_differences(run: Run) -> list[str]:
    """Differences between ``run.json`` and ``metrics.csv``."""
    changed = differing(_flat(run.record.summary), _flat(run.summaries())).items()
    return [f"run.json, summary {name}: stored {one!r}, now {other!r}" for name, (one, other) in changed]


def _flat(summary: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """ "level name" -> value; None for NaN, which JSON does not have."""
    return {
        name.replace(".", " ", 1): None if value is None or math.isnan(value) else float(value)
        for name, value in flat(summary).items()
    }
