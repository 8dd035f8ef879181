"""Image scores and image metrics against scikit-learn, plain loops and released numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from iufbench.metrics.curve import score_curve
from iufbench.metrics.image import grouped_image_metrics, image_metrics, image_score, kind_auroc, sample_auroc
from iufbench.support.errors import InputError, RunError

FIXTURE = np.load(Path(__file__).parent / "data" / "07_metrics.npz")
OBJECTS = [("bolt", 0), ("nut", 1), ("tie", 2)]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3).map(lambda v: v / 8)), min_size=1, max_size=30))
def test_equal_to_scikit_learn_with_ties(pairs):
    labels, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    assume(labels.any() and not labels.all())
    values = image_metrics(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = [2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall)]
    assert values["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert values["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert values["f1_max"] == pytest.approx(max(f1), abs=1e-12)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.booleans(), st.integers(-3, 3).map(lambda v: v / 8)), max_size=60
    )
)
def test_groups_have_the_same_bits_as_each_alone(images):
    group = np.array([image[0] for image in images], dtype=int)
    labels = np.array([image[1] for image in images], dtype=bool)
    scores = np.array([image[2] for image in images])
    found = grouped_image_metrics(labels, scores, group, 5)
    for k in range(5):
        alone = image_metrics(labels[group == k], scores[group == k])
        np.testing.assert_array_equal([values[k] for values in found.values()], list(alone.values()))


def test_large_groups_have_the_same_bits_as_each_alone():
    rng = np.random.default_rng(0)
    labels, scores, group = rng.random(2000) < 0.6, rng.normal(size=2000), rng.integers(3, size=2000)
    found = grouped_image_metrics(labels, scores, group, 3)
    for k in range(3):
        alone = image_metrics(labels[group == k], scores[group == k])
        assert {name: values[k] for name, values in found.items()} == alone


@pytest.mark.parametrize("name, index", OBJECTS)
def test_released_scores_and_values_before_their_flip(name, index):
    of_object = FIXTURE["in/class_index"] == index
    maps, masks = FIXTURE["in/preds"][of_object], FIXTURE["in/masks"][of_object]
    labels, scores = masks.any(axis=(1, 2)), image_score(maps)
    # the released scores are float32 sums of 256 values: 2e-6 of the value
    assert scores == pytest.approx(FIXTURE[f"mid/score_{name}_max"], rel=2e-6)
    assert image_metrics(labels, scores)["auroc"] == pytest.approx(
        float(FIXTURE[f"raw/{name}_max_auc"]), abs=1e-9
    )
    for kind in ("mean", "std"):
        curve = score_curve(labels, FIXTURE[f"mid/score_{name}_{kind}"])
        assert curve.auroc() == pytest.approx(float(FIXTURE[f"raw/{name}_{kind}_auc"]), abs=1e-9)


def test_score_is_the_best_16_by_16_window():
    maps = np.random.default_rng(0).gamma(2, 3, size=(3, 21, 18)).astype(np.float32)
    expected = [
        max(image[y : y + 16, x : x + 16].astype(float).mean() for y in range(6) for x in range(3))
        for image in maps
    ]
    assert image_score(maps) == pytest.approx(np.array(expected), rel=1e-14)
    assert image_score(maps[:, :16, :16]) == pytest.approx(maps[:, :16, :16].mean(axis=(1, 2)), rel=1e-6)


def test_score_depends_on_its_image_only():
    maps = np.random.default_rng(1).normal(size=(5, 32, 24)).astype(np.float32) * 1e6
    together = image_score(maps)
    assert all(image_score(maps[i : i + 1])[0] == together[i] for i in range(5))
    shifted = np.full((1, 40, 40), 0.1, np.float32)
    assert image_score(shifted)[0] == np.float64(np.float32(0.1))  # a constant map scores its constant


def test_maps_smaller_than_the_window():
    with pytest.raises(InputError, match="16x16"):
        image_score(np.zeros((1, 8, 32), np.float32))


@pytest.mark.parametrize(
    "labels, auroc, others", [([0, 0, 0], math.nan, math.nan), ([1, 1, 1], math.nan, 1.0)]
)
def test_one_kind_only(labels, auroc, others):
    values = image_metrics(labels, np.array([0.1, 0.2, 0.3]))
    assert np.array_equal(
        [values["auroc"], values["ap"], values["f1_max"]], [auroc, others, others], equal_nan=True
    )


def test_one_image_and_none():
    assert image_metrics([1], np.array([3.0]))["ap"] == 1.0
    assert all(math.isnan(v) for v in image_metrics([0], np.array([3.0])).values())
    assert all(math.isnan(v) for v in image_metrics([], np.array([])).values())


def test_constant_scores():
    values = image_metrics([1, 0, 0, 0], np.full(4, 2.5))
    assert values == {"auroc": 0.5, "ap": 0.25, "f1_max": pytest.approx(0.4)}


def test_no_flip():
    assert image_metrics([1, 1, 0, 0], np.array([1.0, 2.0, 3.0, 4.0]))["auroc"] == 0.0


@settings(max_examples=50)
@given(st.permutations(list(range(12))))
def test_order_does_not_change_a_bit(order):
    rng = np.random.default_rng(3)
    labels, scores = rng.random(12) < 0.5, rng.integers(0, 6, 12) / 7
    assert image_metrics(labels[order], scores[order]) == image_metrics(labels, scores)


@pytest.mark.parametrize("bad, word", [(math.nan, "NaN"), (math.inf, "infinite")])
def test_scores_that_are_no_numbers_name_object_and_image(bad, word):
    names = ["a.png", "b.png", "c.png"]
    with pytest.raises(RunError, match=rf"^pcb1: .*b\.png.*{word}"):
        image_metrics([0, 1, 1], np.array([0.0, bad, bad]), names=names, object="pcb1")


def test_a_map_with_nan_cannot_pass_as_a_score():
    maps = np.zeros((2, 20, 20), np.float32)
    maps[1, 19, 0] = np.nan
    with pytest.raises(RunError, match="image 1"):
        image_metrics([0, 1], image_score(maps))


@pytest.mark.parametrize("rule", ["max", "top1pct"])
def test_other_score_rules_are_their_formulas(rule):
    maps = np.random.default_rng(3).normal(size=(3, 25, 30)).astype(np.float32)
    expected = []
    for image in maps:
        pixels = sorted(map(float, image.ravel()), reverse=True)
        expected.append(pixels[0] if rule == "max" else sum(pixels[:7]) / 7)  # a hundredth of 750 is 7
    assert image_score(maps, rule) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="unknown"):
        image_score(maps, "median")


def test_sample_auroc_takes_the_highest_view_of_every_part():
    """Against scikit-learn on hand-made parts: a defect visible in one view makes its part defective."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    parts = np.repeat([f"p{k}" for k in range(20)], 5)
    labels = rng.random(100) < 0.1
    scores = rng.random(100) + 0.3 * labels
    order = rng.permutation(100)
    by_part = [parts == f"p{k}" for k in range(20)]
    expected = roc_auc_score([labels[p].any() for p in by_part], [scores[p].max() for p in by_part])
    assert sample_auroc(labels[order], scores[order], list(parts[order])) == pytest.approx(
        expected, abs=1e-12
    )
    assert np.isnan(sample_auroc([True, True], np.array([0.1, 0.2]), ["a", "b"]))


def test_kind_auroc_leaves_other_defects_out():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    labels, scores = rng.random(60) < 0.5, rng.random(60)
    logical = labels & (rng.random(60) < 0.5)
    shown = logical | ~labels
    assert kind_auroc(labels, scores, logical) == pytest.approx(roc_auc_score(labels[shown], scores[shown]))
