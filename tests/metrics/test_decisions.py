"""Thresholds and decisions: against scikit-learn, numpy, scipy and simulation."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score, roc_curve

import iufbench.metrics
from iufbench.metrics.drift import worst_drift, worst_drift_per_object
from iufbench.metrics.thresholds import (
    best_f1_threshold,
    best_guarantee,
    decisions,
    false_alarms_at_recall,
    guaranteed_false_alarm_rate,
    pooled_auroc,
    read_rule,
    recall_at_false_alarms,
    segmentation,
    threshold,
)
from iufbench.support.errors import InputError

RNG = np.random.default_rng(0)


def drawn(n=60, ties=False):
    labels = RNG.random(n) < 0.4
    scores = RNG.normal(size=n) + labels
    return labels, scores.round(0 if ties else 12)


@pytest.mark.parametrize("text", ["quantile 0.95", "0.95", " .95 ", "quantile  0.950"])
def test_a_rule_has_one_form(text):
    assert str(read_rule(text)) == "quantile 0.95"
    assert str(read_rule("mean + 2.5 sd")) == "mean+2.5sd"


@pytest.mark.parametrize(
    "text", ["", "95", "0", "1.0", "quantile", "mean", "mean-3sd", "mean+0sd", "nan", "1e-1"]
)
def test_what_is_not_a_rule_is_refused(text):
    with pytest.raises(InputError, match="threshold"):
        read_rule(text)


@pytest.mark.parametrize("n", [1, 5, 19, 20, 60])
def test_at_most_the_share_of_the_rule_is_above_the_quantile_and_no_lower_score_will_do(n):
    for ties in (False, True):
        scores = drawn(n, ties)[1]
        found = threshold(scores, read_rule("0.95"))
        assert (scores > found).mean() <= 0.05
        lower = scores[scores < found]
        assert not lower.size or (scores > lower.max()).mean() > 0.05


def test_mean_and_deviations():
    scores = drawn()[1]
    want = scores.mean() + 3 * stats.tstd(scores)
    assert threshold(scores, read_rule("mean+3sd")) == pytest.approx(want, rel=1e-12)
    assert math.isnan(threshold([1.0], read_rule("mean+3sd")))


def test_the_guarantee_holds_in_simulation():
    """Uniform scores: the false-alarm rate of a threshold tau is 1 - tau."""
    rng = np.random.default_rng(1)
    for n, rule in ((20, "0.95"), (60, "0.95"), (40, "0.975"), (5, "0.95")):
        parsed = read_rule(rule)
        rates = np.array([1 - threshold(rng.random(n), parsed) for _ in range(2000)])
        exceeded = (rates > guaranteed_false_alarm_rate(n, parsed)).mean()
        assert exceeded == pytest.approx(0.05, abs=0.015), (n, rule)


def test_no_rule_promises_less_than_three_in_n():
    for n in (30, 60, 150):
        assert best_guarantee(n) == pytest.approx(3 / n, rel=0.06)
        assert guaranteed_false_alarm_rate(n, read_rule("0.9999")) == pytest.approx(
            best_guarantee(n), rel=1e-9
        )
    assert math.isnan(guaranteed_false_alarm_rate(60, read_rule("mean+3sd")))


@pytest.mark.parametrize("ties", [False, True])
def test_decisions_and_operating_points_against_sklearn(ties):
    for _ in range(3):
        labels, scores = drawn(ties=ties)
        level = float(np.median(scores))
        found = decisions(labels, scores, level)
        alarm = scores > level
        assert found["recall"] == pytest.approx(alarm[labels].mean())
        assert found["false_alarm"] == pytest.approx(alarm[~labels].mean())
        assert found["f1"] == pytest.approx(f1_score(labels, alarm))
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        assert recall_at_false_alarms(labels, scores) == tpr[fpr <= 0.05].max()
        assert false_alarms_at_recall(labels, scores) == fpr[tpr >= 0.95].min()
        best = best_f1_threshold(labels, scores)
        every = [f1_score(labels, scores >= t) for t in np.unique(scores)[::2]]
        assert decisions(labels, scores, best)["f1"] >= max(every) - 1e-12


def test_what_is_undefined_is_nan():
    nothing = decisions([False], [1.0], 0.0)
    assert nothing["false_alarm"] == 1 and math.isnan(nothing["recall"]) and math.isnan(nothing["f1"])
    assert math.isnan(decisions([True], [1.0], 0.0)["false_alarm"])
    assert all(map(math.isnan, decisions([True, False], [1.0, 0.0], math.nan).values()))
    assert math.isnan(recall_at_false_alarms([True], [1.0]))
    assert math.isnan(false_alarms_at_recall([False], [1.0]))
    assert all(map(math.isnan, pooled_auroc([])))


def test_segmentation_against_sklearn():
    masks = RNG.random((3, 8, 9)) < 0.2
    maps = (RNG.random((3, 8, 9)) + masks).astype(np.float32)
    found = segmentation(masks, maps, 0.8)
    alarm = (maps > 0.8).ravel()
    assert found["seg_f1"] == pytest.approx(f1_score(masks.ravel(), alarm))
    assert found["iou"] == pytest.approx(jaccard_score(masks.ravel(), alarm))
    assert math.isnan(segmentation(np.zeros_like(masks), maps, 0.8)["iou"])


def test_pooled_auroc_against_sklearn():
    groups = [drawn() for _ in range(3)]
    groups = [(labels, scores + 3 * k) for k, (labels, scores) in enumerate(groups)]
    pooled, gap = pooled_auroc(groups)
    together = [np.concatenate(parts) for parts in zip(*groups)]
    assert pooled == pytest.approx(roc_auc_score(*together))
    assert gap == pytest.approx(np.mean([roc_auc_score(*g) for g in groups]) - pooled)


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(iufbench.metrics.__path__)])
def test_examples_in_docstrings(name):
    module = importlib.import_module(f"iufbench.metrics.{name}")
    assert doctest.testmod(module).failed == 0


def test_worst_drift_is_the_largest_increase_of_any_object_at_any_time():
    rates = np.array([[0.2, np.nan, np.nan], [0.7, 0.5, np.nan], [0.1, 0.4, 0.9]])
    assert worst_drift(rates, [0, 1, 2]) == pytest.approx(0.5)
    assert worst_drift_per_object(rates, [0, 1, 2])[1] == pytest.approx(-0.1)
    rates[2, 1] = np.nan
    assert math.isnan(worst_drift(rates, [0, 1, 2])), "not the largest of those that are there"
    assert math.isnan(worst_drift(rates[:1, :1], [0]))
