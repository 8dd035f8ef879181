"""How thresholds hold along the stream: drift of false alarms and of recall, one threshold for all objects.

R is [T, O] as in ``continual``, here a rate in [0, 1] at each object's frozen threshold: the one calibrated
on normal images right after the object was learnt (experience i(o)) and kept since.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from iufbench.metrics.continual import Introduced, bwt
from iufbench.metrics.definition import Definition
from iufbench.metrics.thresholds import pooled_auroc


def worst_drift_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] max over t > i(o) of R[t, o] - R[i(o), o].

    Args:
        R: Rates [T, O]; NaN where not measured.
        introduced: i(o) [O].

    Returns:
        The largest increase, negative where every later rate is lower; NaN for objects of the last
        experience, and where a rate since i(o) is missing.

    Example:
        >>> worst_drift_per_object([[0.1, np.nan], [0.5, 0.2], [0.3, 0.1]], [0, 1]).tolist()
        [0.4, -0.1]
    """
    values, first = np.array(R, dtype=np.float64), np.array(introduced)
    found = np.full(len(first), np.nan)
    for o, i in enumerate(first):
        if i < len(values) - 1:
            found[o] = (values[i + 1 :, o] - values[i, o]).max()
    return found


def worst_drift(R: npt.ArrayLike, introduced: Introduced) -> float:
    """max over objects of ``worst_drift_per_object``; NaN if one is missing, or with one experience."""
    past = worst_drift_per_object(R, introduced)[np.array(introduced) < len(np.array(R)) - 1]
    return float(past.max()) if past.size else float("nan")


DRIFTS: dict[str, str] = {
    "false_alarm_drift": "false_alarm_frozen",
    "false_alarm_drift_worst": "false_alarm_frozen",
    "recall_drift": "recall_frozen",
}
"""Name of a summary -> the image metric whose matrix it summarises."""

DEFINITIONS: dict[str, Definition] = {
    d.name: d
    for d in (
        Definition(
            "false_alarm_drift",
            "False-alarm drift",
            "mean over the objects not of the last experience T-1 of FA[T-1,o] - FA[i(o),o], FA = share of "
            "false alarms on good test images at the frozen threshold, i(o) = experience that introduced o",
            "this project; 0 for a threshold that holds",
            False,
            bwt,
        ),
        Definition(
            "false_alarm_drift_worst",
            "Worst false-alarm drift",
            "max over the objects not of the last experience, and over t > i(o), of FA[t,o] - FA[i(o),o]",
            "this project",
            False,
            worst_drift,
        ),
        Definition(
            "recall_drift",
            "Recall drift",
            "mean over the objects not of the last experience T-1 of RC[T-1,o] - RC[i(o),o], RC = share of "
            "defective test images above the frozen threshold",
            "this project; 0 for a threshold that holds",
            True,
            bwt,
        ),
        Definition(
            "auroc_pooled",
            "Pooled AUROC",
            "image AUROC over the test images of all objects seen, pooled, after the last experience: as "
            "with one threshold for all objects",
            "this project",
            True,
            pooled_auroc,
        ),
        Definition(
            "auroc_gap",
            "Pooling gap",
            "mean over objects of the image AUROC minus the pooled one, after the last experience: how much "
            "is lost because scores of objects differ in scale",
            "this project",
            False,
            pooled_auroc,
        ),
    )
}
