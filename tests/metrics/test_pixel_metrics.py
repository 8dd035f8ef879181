"""Pixel metrics against scikit-learn, a separate AUPRO from its definition, and released numbers."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from aupro_oracle import aupro_by_sorting, aupro_by_thresholds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from iufbench.metrics import pixel, thresholds
from iufbench.metrics.pixel import aupimo_per_image, pixel_curve, pixel_metrics
from iufbench.metrics.values import DEFINITIONS
from iufbench.support.errors import RunError

FIXTURE = np.load(Path(__file__).parent / "data" / "07_metrics.npz")
NAMES = ["auroc", "ap", "f1_max", "aupro_30", "aupro_05"]


@st.composite
def tied_inputs(draw):
    """Masks and maps of a few small images; scores from a few values, or any float32."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)))
    few = st.integers(-2, draw(st.integers(-1, 6))).map(lambda v: v / 4)
    anything = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)
    maps = draw(hnp.arrays(np.float32, shape, elements=draw(st.sampled_from([few, anything]))))
    masks = draw(hnp.arrays(bool, shape))
    return masks, maps


def realistic(n=12, size=48, seed=0, levels=None):
    """Smooth maps with blobs; about 1 % of the pixels are defective, half of the images are normal."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(n, size, size)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    for i in range(0, n, 2):
        for _ in range(2):
            y, x = rng.integers(0, size - 6, 2)
            masks[i, y : y + 5, x : x + 4] = True
    maps += 1.5 * masks
    if levels:
        maps = np.round(maps * levels) / np.float32(levels)
    return masks, maps


def f1_max_reference(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    return np.max(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0))


def same(a, b):
    return all(a[k] == b[k] or (math.isnan(a[k]) and math.isnan(b[k])) for k in a.keys() | b.keys())


@settings(max_examples=400)
@given(tied_inputs())
def test_equal_to_scikit_learn_and_to_the_definition_of_aupro(inputs):
    masks, maps = inputs
    assume(masks.any() and not masks.all())
    values = pixel_metrics(masks, maps)
    labels, scores = masks.ravel(), maps.ravel()
    assert values["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert values["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert values["f1_max"] == pytest.approx(f1_max_reference(labels, scores), abs=1e-12)
    for limit, name in ((0.3, "aupro_30"), (0.05, "aupro_05")):
        assert values[name] == pytest.approx(aupro_by_thresholds(masks, maps, limit), abs=1e-9)


@pytest.mark.parametrize("levels", [None, 100, 4])
def test_equal_on_realistic_maps(levels):
    masks, maps = realistic(levels=levels)
    values = pixel_metrics(masks, maps, aupro_limits=(0.3, 0.05, 1.0))
    assert values["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert values["ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert values["f1_max"] == pytest.approx(f1_max_reference(masks.ravel(), maps.ravel()), abs=1e-12)
    for limit, name in ((0.3, "aupro_30"), (0.05, "aupro_05"), (1.0, "aupro_100")):
        assert values[name] == pytest.approx(aupro_by_sorting(masks, maps, limit), abs=1e-9)


@settings(max_examples=100)
@given(tied_inputs(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_the_two_oracles_agree(inputs, limit):
    masks, maps = inputs
    assume(masks.any() and not masks.all())
    by_thresholds = aupro_by_thresholds(masks, maps, limit)
    assert aupro_by_sorting(masks, maps, limit) == pytest.approx(by_thresholds, abs=1e-9)


@settings(max_examples=100)
@given(tied_inputs(), st.randoms(use_true_random=False))
def test_neither_image_order_nor_chunks_change_a_bit(inputs, random):
    masks, maps = inputs
    values = pixel_metrics(masks, maps, aupimo=True)
    order = random.sample(range(len(maps)), len(maps))
    shuffled = pixel_metrics(masks[order], maps[order], aupimo=True)
    assert shuffled.pop("aupimo") == pytest.approx(values.pop("aupimo"), abs=1e-12, nan_ok=True)
    assert same(shuffled, values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel, "CHUNK_PIXELS", 1)
        assert same(pixel_metrics(masks, maps), values)


@settings(max_examples=100)
@given(tied_inputs())
def test_only_the_order_of_scores_matters(inputs):
    masks, maps = inputs
    ranks = np.unique(maps, return_inverse=True)[1].reshape(maps.shape).astype(np.float32)
    assert same(pixel_metrics(masks, maps), pixel_metrics(masks, ranks * 2 + 40))


@pytest.mark.parametrize("name, index", [("bolt", 0), ("nut", 1), ("tie", 2)])
def test_released_numbers_before_their_flip(name, index):
    of_object = FIXTURE["in/class_index"] == index
    maps, masks = FIXTURE["in/preds"][of_object], FIXTURE["in/masks"][of_object] > 0
    assert pixel_metrics(masks, maps)["auroc"] == pytest.approx(
        float(FIXTURE[f"raw/{name}_pixel_auc"]), abs=1e-9
    )


def test_below_half_stays_below_half():
    masks, maps = realistic()
    assert pixel_metrics(masks, -maps)["auroc"] == pytest.approx(1 - pixel_metrics(masks, maps)["auroc"])
    assert pixel_metrics(masks, -maps)["auroc"] < 0.5


def test_no_defect_is_undefined_everywhere():
    values = pixel_metrics(np.zeros((3, 5, 5), bool), np.random.rand(3, 5, 5), aupimo=True)
    assert list(values) == [*NAMES, "aupimo"] and all(math.isnan(v) for v in values.values())


def test_mask_all_ones_has_precision_but_no_false_positive_rate():
    values = pixel_metrics(np.ones((2, 4, 4), bool), np.random.rand(2, 4, 4), aupimo=True)
    assert values["ap"] == values["f1_max"] == 1.0
    assert all(math.isnan(values[name]) for name in ("auroc", "aupro_30", "aupro_05", "aupimo"))


def test_constant_maps_show_a_dead_model():
    masks, maps = realistic()
    values = pixel_metrics(masks, np.full_like(maps, 7.0))
    share = masks.mean()
    assert values["auroc"] == 0.5
    assert values["ap"] == pytest.approx(share) and values["f1_max"] == pytest.approx(2 * share / (1 + share))
    assert values["aupro_30"] == pytest.approx(0.15) and values["aupro_05"] == pytest.approx(0.025)


def test_perfect_maps():
    masks, _ = realistic()
    assert set(pixel_metrics(masks, masks.astype(np.float32)).values()) == {1.0}


def test_one_image():
    masks, maps = realistic(n=1)
    values = pixel_metrics(masks, maps, aupimo=True)
    assert values["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert values["aupro_30"] == pytest.approx(aupro_by_sorting(masks, maps, 0.3), abs=1e-9)
    assert math.isnan(values["aupimo"])  # no image without a defect


def test_no_image():
    nothing = np.empty((0, 4, 4))
    assert all(
        math.isnan(v) for v in pixel_metrics(nothing.astype(bool), nothing.astype(np.float32)).values()
    )


def test_regions_are_eight_connected_and_do_not_cross_images():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, [0, 1], [0, 1]] = True  # touch at a corner: one region of two pixels
    masks[1, 0, 0] = True  # the same place in the next image: another region
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 0, 0] = 2.0  # half of the first region, before any normal pixel
    maps[1, 0, 0] = maps[0, 1, 1] = -1.0
    # PRO is (1/2 + 0) / 2 = 1/4 until every normal pixel (score 0) is reached, one tie from FPR 0 to 1
    assert pixel_metrics(masks, maps, aupro_limits=(0.3,))["aupro_30"] == pytest.approx(0.25)


@pytest.mark.parametrize("bad, word", [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_scores_that_are_no_numbers_name_object_and_image(bad, word, monkeypatch):
    monkeypatch.setattr(pixel, "CHUNK_PIXELS", 1)
    masks, maps = realistic(n=4)
    maps[2, 3, 3] = bad
    names = [f"screw/test/{i}.png" for i in range(4)]
    with pytest.raises(RunError, match=rf"^screw: .*screw/test/2\.png.*{word}"):
        pixel_metrics(masks, maps, names=names, object="screw")
    with pytest.raises(RunError, match=r"^screw: .*image 2 "):
        pixel_metrics(masks, maps, object="screw")


def test_masks_must_be_binarised_by_the_caller():
    with pytest.raises(TypeError, match="bool"):
        pixel_metrics(np.full((1, 2, 2), 0.5), np.zeros((1, 2, 2), np.float32))
    with pytest.raises(ValueError, match="the same shape"):
        pixel_metrics(np.ones((1, 2, 2), bool), np.zeros((2, 2, 2), np.float32))


def test_inputs_are_left_alone():
    masks, maps = realistic()
    before = masks.copy(), maps.copy()
    pixel_metrics(masks, maps, aupimo=True)
    assert np.array_equal(masks, before[0]) and np.array_equal(maps, before[1])


def test_threshold_of_the_best_f1():
    masks, maps = realistic()
    curve = pixel_curve(masks, maps)
    predicted = maps >= np.float32(curve.f1_max_threshold())
    hits = (predicted & masks).sum()
    assert 2 * hits / (predicted.sum() + masks.sum()) == pytest.approx(curve.f1_max(), abs=1e-12)


def test_aupimo_is_the_integral_over_log_fpr():
    masks, maps = realistic(n=8, size=40)
    lower, upper = 1e-3, 1e-1
    normals = maps[~masks.any(axis=(1, 2))]
    thresholds = np.unique(maps)
    fpr = np.array([np.mean(normals >= t) for t in thresholds])
    expected = []
    for mask, image in zip(masks, maps):
        if mask.any():
            tpr = np.array([np.mean(image[mask] >= t) for t in thresholds])
            points = np.exp(np.linspace(np.log(lower), np.log(upper), 4001))
            # the highest TPR the image reaches without going over each rate
            best = [tpr[fpr <= p].max() for p in points]
            expected.append(np.mean(best))
    assert aupimo_per_image(masks, maps, (lower, upper)) == pytest.approx(np.array(expected), abs=1e-3)


def test_memory_beyond_the_maps_is_small():
    rng = np.random.default_rng(0)
    maps = rng.random((60, 224, 224), dtype=np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[:30, 100:122, 100:122] = True
    tracemalloc.start()
    pixel_metrics(masks, maps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # the maps themselves are 12 MB; a pass with argsort takes 180 MB


def test_every_value_has_a_definition_that_computes_it():
    masks, maps = realistic()
    curve, values = pixel_curve(masks, maps), pixel_metrics(masks, maps, aupimo=True)
    of_scores = (thresholds.decisions, thresholds.recall_at_false_alarms, thresholds.false_alarms_at_recall)
    others = {n for n, d in DEFINITIONS.items() if d.function in (*of_scores, thresholds.segmentation)}
    assert set(values) == {n for n in DEFINITIONS if not n.startswith("auroc_")} - others
    for name in NAMES:
        assert DEFINITIONS[name].function(curve) == values[name]
    assert DEFINITIONS["aupimo"].function(masks, maps).mean() == values["aupimo"]
