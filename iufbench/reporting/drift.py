"""Whether thresholds hold along the stream: false alarms and recall when learnt and at the end, with the rate
guaranteed by the calibration; and the cost of one threshold for all objects."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from iufbench.metrics.continual import bwt_per_object
from iufbench.metrics.drift import DEFINITIONS, DRIFTS, worst_drift_per_object
from iufbench.metrics.thresholds import guaranteed_false_alarm_rate, pooled_auroc, read_rule
from iufbench.reporting.rundir import SCORES
from iufbench.reporting.store import Run

NO_THRESHOLDS = "no thresholds: the run was made without --threshold"


def calibrated(run: Run) -> bool:
    """Whether the run has decision thresholds."""
    return run.record.thresholds is not None


def guaranteed(run: Run) -> dict[str, float]:
    """Object -> the false-alarm rate that its frozen threshold guarantees at 95 % confidence.

    It holds for images like those for calibration, scored right after the object was learnt. NaN with
    mean + k sd; empty for a run without thresholds.
    """
    record = run.record.thresholds
    if record is None:
        return {}
    rule = read_rule(record.rule)
    return {name: guaranteed_false_alarm_rate(o.images, rule) for name, o in record.objects.items()}


def drifts(run: Run) -> dict[str, float]:
    """The summaries of ``metrics.drift.DRIFTS``; NaN where undefined, empty for a run without thresholds."""
    if not calibrated(run):
        return {}
    found = {}
    for name, metric in DRIFTS.items():
        matrix = run.matrix("image", metric)
        found[name] = float(DEFINITIONS[name].function(matrix.values, matrix.introduced))
    return found


def by_object(run: Run) -> pd.DataFrame:
    """One row per object of a run with thresholds, in the order of the protocol.

    ``images`` (for calibration), ``guaranteed``, then rates in [0, 1], NaN where undefined: for each image
    metric ``m`` at thresholds ``m_learnt`` (right after the object was learnt) and ``m_final``; and
    ``false_alarm_drift``, ``false_alarm_worst``, ``recall_drift``. Raises KeyError without thresholds.
    """
    record = run.record.thresholds
    if record is None:
        raise KeyError(run.id)
    found: dict[str, object] = {"object": list(run.objects)}
    found["images"] = [record.objects[o].images if o in record.objects else 0 for o in run.objects]
    promised = guaranteed(run)
    found["guaranteed"] = [promised.get(o, math.nan) for o in run.objects]
    places = np.arange(len(run.objects))
    for metric in ("false_alarm_frozen", "false_alarm_own", "recall_frozen", "recall_own", "f1_frozen"):
        matrix = run.matrix("image", metric)
        found[f"{metric}_learnt"] = matrix.values[matrix.introduced, places]
        found[f"{metric}_final"] = matrix.values[-1]
    found["f1_transferred_final"] = run.matrix("image", "f1_transferred").values[-1]
    alarms, recall = run.matrix("image", "false_alarm_frozen"), run.matrix("image", "recall_frozen")
    found["false_alarm_drift"] = bwt_per_object(alarms.values, alarms.introduced)
    found["false_alarm_worst"] = worst_drift_per_object(alarms.values, alarms.introduced)
    found["recall_drift"] = bwt_per_object(recall.values, recall.introduced)
    return pd.DataFrame(found)


def threshold_rows(run: Run) -> list[dict[str, str]]:
    """The frozen threshold of every object with what it did and what is guaranteed, as a table of texts.

    Empty for a run without thresholds.
    """
    record = run.record.thresholds
    if record is None:
        return []
    rows = []
    for row in by_object(run).to_dict("records"):
        own = record.objects.get(row["object"])
        level = None if own is None else own.frozen_image
        rows.append(
            {
                "object": row["object"],
                "images": str(row["images"]),
                "threshold": "undefined" if level is None else f"{level:.4g}",
                "guaranteed at most": "none" if math.isnan(row["guaranteed"]) else _rate(row["guaranteed"]),
                "false alarms": _rate(row["false_alarm_frozen_learnt"]),
                "final false alarms": _rate(row["false_alarm_frozen_final"]),
                "recall": _rate(row["recall_frozen_learnt"]),
                "final recall": _rate(row["recall_frozen_final"]),
            }
        )
    return rows


def pooled(run: Run) -> tuple[float, float]:
    """Image AUROC pooled over all objects after the last experience, and the mean over objects minus it.

    Computed from the recorded scores; NaN unless every object has good and defective images.
    Raises RunError if the scores are corrupted.
    """
    last = len(run.experiences) - 1
    if not (run.path / SCORES).exists():
        return math.nan, math.nan
    groups = run.image_scores.by_group()
    found = {name: (labels, scores) for t, name, labels, scores in groups if t == last}
    if set(found) != set(run.objects):
        return math.nan, math.nan
    return pooled_auroc(found.values())


def explanation(run: Run, name: str) -> list[str]:
    """The steps to a definition of ``metrics.drift`` on a run, in lines for ``iufbench explain``."""
    if name not in DRIFTS:
        auroc, gap = pooled(run)
        if math.isnan(auroc):
            return ["  undefined: every object needs scores of good and of defective test images"]
        return [f"  image: mean over objects {auroc + gap:.3f}, pooled {auroc:.3f}, gap {gap:.3f}"]
    if not calibrated(run):
        return [f"  {NO_THRESHOLDS}"]
    kind = DRIFTS[name].removesuffix("_frozen")
    lines = []
    for row in by_object(run).to_dict("records"):
        learnt, final = row[f"{kind}_frozen_learnt"], row[f"{kind}_frozen_final"]
        text = f"  {row['object']}: {_rate(learnt)} when learnt, {_rate(final)} finally"
        if kind == "false_alarm":
            if not math.isnan(row["false_alarm_worst"]):  # not learnt last
                text += f", largest increase {_rate(row['false_alarm_worst'])}"
            text += f"; {_promise(row['guaranteed'], row['images'])}"
        lines.append(text)
    value = drifts(run)[name]
    return [*lines, f"  {name}: {_rate(value)}"]


def _rate(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _promise(rate: float, images: int) -> str:
    if math.isnan(rate):
        return "nothing guaranteed (mean + k sd)"
    return f"at most {rate:.3f} guaranteed by {images} calibration images"
