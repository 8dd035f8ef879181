"""iufbench.metrics as a package of its own: numpy in, floats out, without torch."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
from iufbench.metrics.drift import worst_drift
from iufbench.metrics.image import image_metrics, image_score
from iufbench.metrics.pixel import pixel_metrics
from iufbench.metrics.summaries import summarise
from iufbench.metrics.thresholds import decisions, guaranteed_false_alarm_rate, read_rule, threshold
from iufbench.metrics.values import DEFINITIONS

rng = np.random.default_rng(0)
masks = np.zeros((6, 32, 32), bool)
masks[3:, 8:20, 8:20] = True
maps = (40 + masks + rng.normal(0, 0.3, masks.shape)).astype(np.float32)
labels, scores = masks.any(axis=(1, 2)), image_score(maps)
values = image_metrics(labels, scores) | pixel_metrics(masks, maps, aupimo=True)
rule = read_rule("quantile 0.95")
level = threshold(scores[~labels], rule)
values |= decisions(labels, scores, level) | summarise([[0.9, np.nan], [0.8, 0.7]], [0, 1])
values |= {"worst": worst_drift([[0.1, np.nan], [0.3, 0.2]], [0, 1])}
values |= {"guaranteed": guaranteed_false_alarm_rate(3, rule)}
assert set(values) >= {"auroc", "ap", "f1_max", "aupro_30", "aupro_05", "aupimo"} <= set(DEFINITIONS)
assert 0.9 < values["auroc"] < 1 and 0 < values["aupro_05"] < 1 and values["recall"] == 1
assert all(type(value) is float for value in values.values()), values
heavy = {"torch", "torchvision", "timm", "avalanche", "pandas", "matplotlib", "sklearn", "click"}
print(sorted(heavy & set(sys.modules)))
"""


def test_metrics_are_computed_without_torch():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
