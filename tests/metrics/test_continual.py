"""Continual summaries on matrices computed by hand, on published curves, and with missing values."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iufbench.metrics import continual
from iufbench.metrics.summaries import DEFINITIONS, summarise

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
NAN = math.nan

# One object an experience, unseen objects evaluated too.
FOUR = [
    [0.95, 0.58, 0.57, 0.50],
    [0.90, 0.93, 0.58, 0.52],
    [0.87, 0.95, 0.91, 0.54],
    [0.80, 0.82, 0.88, 0.96],
]
IMPROVING = [
    [0.90, 0.70, 0.65, 0.60],
    [0.95, 0.80, 0.72, 0.66],
    [0.85, 0.88, 0.96, 0.70],
    [0.88, 0.90, 0.91, 0.94],
]
# Two base objects, then one, then one; unseen objects not evaluated.
BASE_OF_TWO = [
    [0.90, 0.80, NAN, NAN],
    [0.85, 0.82, 0.70, NAN],
    [0.88, 0.70, 0.75, 0.95],
]

BY_HAND = [
    (
        FOUR,
        [0, 1, 2, 3],
        {
            "acc": 0.910,
            "acc_final": 0.865,
            "fm": (0.035 + 0.040 + 0.085) / 3,
            "fm_step": (0.05 + (0.08 - 0.02) / 2 + 0.31 / 3) / 3,
            "fm_final": 0.31 / 3,
            "fm_best": 0.31 / 3,
            "forgetting_first": 0.29 / 3,
            "bwt": -0.29 / 3,
            "fm_final_tasks": 0.31 / 3,
            "new_object": 3.75 / 4,
            "plasticity": (0.35 + 0.34 + 0.46) / 3,
            "retention": -0.29 / 3,
            "avalanche_forgetting": 0.29 / 3,
            "avalanche_bwt": -0.29 / 3,
            "pyclad_average": 0.897,
            "pyclad_fm": -0.0275,
            "pyclad_bwt": -0.29 / 6,
            "pyclad_bwt_documented": -0.40 / 6,
            "pyclad_fwt": 3.29 / 6,
        },
    ),
    (
        IMPROVING,
        [0, 1, 2, 3],
        {
            "acc": (0.90 + 0.875 + 2.69 / 3 + 0.9075) / 4,
            "acc_final": 0.9075,
            "fm": (0.025 + (0.90 - 2.69 / 3) - 0.0075) / 3,
            "fm_step": (-0.05 + (0.10 - 0.08) / 2 + (0.07 - 0.02 + 0.05) / 3) / 3,
            "fm_final": 0.1 / 3,
            "fm_best": 0.04,
            "forgetting_first": -0.01,
            "bwt": 0.01,
            "fm_final_tasks": 0.1 / 3,
            "new_object": 0.90,
            "plasticity": (0.10 + 0.31 + 0.34) / 3,
            "retention": 0.01,
            "avalanche_forgetting": -0.01,
            "avalanche_bwt": 0.01,
            "pyclad_average": 0.897,
            "pyclad_fm": -0.035,
            "pyclad_bwt": (-0.02 + 0.10 - 0.05) / 6,
            "pyclad_bwt_documented": (0.05 - 0.05 - 0.02 + 0.08 + 0.10 - 0.05) / 6,
            "pyclad_fwt": (0.70 + 0.65 + 0.60 + 0.72 + 0.66 + 0.70) / 6,
        },
    ),
    (
        BASE_OF_TWO,
        [0, 0, 1, 2],
        {
            "acc": 0.82,
            "acc_final": 0.82,
            "fm": 0.045,
            "fm_step": (0.015 + 0.03) / 2,
            "fm_final": 0.03,
            "fm_best": 0.14 / 3,
            "forgetting_first": 0.07 / 3,
            "bwt": -0.07 / 3,
            "fm_final_tasks": (0.06 - 0.05) / 2,  # the base is one task: .85, .835, .79
            "new_object": 0.8375,
            "plasticity": NAN,
            "retention": -0.07 / 3,
            "avalanche_forgetting": 0.005,
            "avalanche_bwt": -0.005,
            "pyclad_average": 0.8125,
            "pyclad_fm": NAN,
            "pyclad_bwt": -0.01 / 3,
            "pyclad_bwt_documented": -0.025 / 3,
            "pyclad_fwt": NAN,
        },
    ),
]


@pytest.mark.parametrize("R, introduced, expected", BY_HAND, ids=["four", "improving", "base of two"])
def test_values_worked_out_by_hand(R, introduced, expected):
    assert summarise(R, introduced) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_the_four_task_matrix_to_the_printed_digits():
    s = summarise(FOUR, [0, 1, 2, 3])
    printed = [s[k] for k in ("fm_final", "forgetting_first", "pyclad_fm", "bwt", "pyclad_bwt")]
    assert printed == pytest.approx([0.1033, 0.0967, -0.0275, -0.0967, -0.0483], abs=5e-5)
    assert (s["pyclad_bwt_documented"], s["pyclad_fwt"]) == pytest.approx((-0.0667, 0.5483), abs=5e-5)


def test_intransigence_compares_each_experience_with_training_on_all_so_far():
    reference = [0.96, 0.95, 0.90, 0.97]  # FOUR has .95 .93 .91 .96 when new: .01 + .02 - .01 + .01
    assert continual.intransigence(FOUR, [0, 1, 2, 3], reference) == pytest.approx(0.03 / 4)
    new = summarise(FOUR, [0, 1, 2, 3])["new_object"]
    assert continual.intransigence(FOUR, [0, 1, 2, 3], reference) == pytest.approx(np.mean(reference) - new)
    assert continual.intransigence(FOUR, [0, 1, 2, 3], np.diag(FOUR)) == 0
    assert continual.intransigence([[0.9, 0.8]], [0, 0], [0.9, 0.9]) == pytest.approx(0.05)  # one experience
    assert math.isnan(continual.intransigence(FOUR, [0, 1, 2, 3], [0.9, NAN, 0.9, 0.9]))
    assert "intransigence" not in summarise(FOUR, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="reference values"):
        continual.intransigence(FOUR, [0, 1, 2, 3], [0.9])


def test_plasticity_is_the_gain_over_a_frozen_model():
    zero_shot = [NAN, NAN, 0.60, 0.70]  # of the base nothing is asked
    assert continual.plasticity(BASE_OF_TWO, [0, 0, 1, 2], zero_shot) == pytest.approx((0.10 + 0.25) / 2)
    assert continual.plasticity([FOUR[0]] * 4, [0, 1, 2, 3]) == 0
    assert math.isnan(continual.plasticity([[0.9, 0.8]], [0, 0]))  # nothing came after the base
    with pytest.raises(ValueError, match="zero-shot values"):
        continual.plasticity(FOUR, [0, 1, 2, 3], [0.5])


def test_forward_transfer_needs_a_measured_baseline():
    baseline = [NAN, 0.50, 0.50, 0.48]  # the base experience is not transferred to
    assert continual.fwt(FOUR, [0, 1, 2, 3], baseline) == pytest.approx(0.22 / 3)
    assert math.isnan(continual.fwt(FOUR, [0, 1, 2, 3], [0.5, 0.5, NAN, 0.5]))
    assert math.isnan(continual.fwt(BASE_OF_TWO, [0, 0, 1, 2], [0.5] * 4))
    assert "fwt" not in summarise(FOUR, [0, 1, 2, 3]) and DEFINITIONS["fwt"].needs == ("baseline",)
    with pytest.raises(ValueError, match="baselines"):
        continual.fwt(FOUR, [0, 1, 2, 3], [0.5])


def test_vectors_per_object_and_experience():
    R, introduced = BASE_OF_TWO, [0, 0, 1, 2]
    expected = {
        "curve": [0.85, 0.79, 0.82],
        "forgetting_per_experience": [NAN, 0.015, 0.03],
        "forgetting_per_object": [0.02, 0.12, -0.05, NAN],
        "bwt_per_object": [-0.02, -0.10, 0.05, NAN],
        "new_object_per_object": [0.90, 0.80, 0.70, 0.95],
    }
    for name, values in expected.items():
        assert getattr(continual, name)(R, introduced) == pytest.approx(np.array(values), nan_ok=True), name
    E = [[0.85, NAN, NAN], [0.835, 0.70, NAN], [0.79, 0.75, 0.95]]
    assert continual.by_experience(R, introduced) == pytest.approx(np.array(E), nan_ok=True)


def test_one_experience_has_no_forgetting():
    s = summarise([[0.9, 0.7, 0.8]], [0, 0, 0])
    defined = {name for name, value in s.items() if not math.isnan(value)}
    assert defined == {"acc", "acc_final", "new_object", "pyclad_average"}
    assert [s[name] for name in defined] == pytest.approx([0.8] * 4)
    assert math.isnan(continual.fwt([[0.9]], [0], [0.5]))


@st.composite
def matrices(draw):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    introduced = draw(st.permutations([t for t, size in enumerate(sizes) for _ in range(size)]))
    shape = (len(sizes), len(introduced))
    return draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1))), introduced


@settings(max_examples=200)
@given(matrices(), st.data())
def test_a_hole_makes_a_summary_nan_or_leaves_it_alone(matrix, data):
    R, introduced = matrix
    whole = summarise(R, introduced)
    t, o = data.draw(st.tuples(st.integers(0, R.shape[0] - 1), st.integers(0, R.shape[1] - 1)))
    R[t, o] = NAN
    for name, value in summarise(R, introduced).items():
        assert math.isnan(value) or value == whole[name], name
    if t >= introduced[o]:
        assert math.isnan(continual.acc(R, introduced))


@settings(max_examples=200)
@given(matrices(), st.data())
def test_relations_between_definitions(matrix, data):
    R, introduced = matrix
    s = summarise(R, introduced)
    order = data.draw(st.permutations(range(R.shape[1])))
    assert summarise(R[:, order], [introduced[o] for o in order]) == pytest.approx(s, abs=1e-12, nan_ok=True)
    shifted = summarise(R - 0.25, introduced)
    for name, value in s.items():
        level = name in ("acc", "acc_final", "new_object", "pyclad_average", "pyclad_fwt")
        assert shifted[name] == pytest.approx(value - 0.25 * level, abs=1e-12, nan_ok=True), name
    if len(R) > 1:
        assert s["fm_best"] >= s["fm_final"] >= s["forgetting_first"] - 1e-12
        assert s["forgetting_first"] == -s["bwt"]


@pytest.mark.parametrize("introduced", [[0, 1, 2], [0, 1, 2, 4], [0, 1, 2, -1], [0.0, 1.0, 2.0, 3.0]])
def test_introduced_must_fit_the_matrix(introduced):
    with pytest.raises(ValueError, match="introduced"):
        continual.acc(FOUR, introduced)


def rows(name):
    with (PUBLISHED / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def published_matrices(level, method):
    """protocol -> (R, introduced): every object has the value of the digitised curve."""
    points = defaultdict(list)
    for row in rows("published_curves.csv"):
        if row["level"] == level and row["method"] == method:
            points[row["protocol"]].append((int(row["n_objects"]), float(row["auroc_percent"])))
    result = {}
    for protocol, found in points.items():
        found.sort()
        counts = [n for n, _ in found]
        introduced = [next(t for t, n in enumerate(counts) if o < n) for o in range(counts[-1])]
        result[protocol] = (np.repeat([[value] for _, value in found], counts[-1], axis=1), introduced)
    return result


def test_digitised_curves_give_back_the_printed_numbers():
    digitised = published_matrices("image", "IUF")
    printed = {
        (row["protocol"], row["metric"]): float(row["value_percent"])
        for row in rows("published_results.csv")
        if (row["kind"], row["level"], row["method"]) == ("printed", "image", "IUF")
    }
    assert len(digitised) == 7 and {p for p, metric in printed if metric == "ACC"} == set(digitised)
    for (protocol, metric), percent in printed.items():
        value = DEFINITIONS[metric.lower()].function(*digitised[protocol])
        assert value == pytest.approx(percent, abs=0.1), (protocol, metric)


def test_values_read_from_figures_follow_the_same_definitions():
    names = {"ACC": "acc", "FM": "fm", "LAST": "acc_final"}
    checked = 0
    for level in ("image", "pixel"):
        for method in ("IUF", "UniAD", "UniAD+EWC"):
            digitised = published_matrices(level, method)
            for row in rows("published_results.csv"):
                of_figure = (row["kind"], row["level"], row["method"]) == ("read_from_figure", level, method)
                if of_figure and row["metric"] in names and row["protocol"] in digitised:
                    value = DEFINITIONS[names[row["metric"]]].function(*digitised[row["protocol"]])
                    assert value == pytest.approx(float(row["value_percent"]), abs=0.1), row
                    checked += 1
    assert checked > 100


def test_definitions_can_be_printed():
    for name, d in DEFINITIONS.items():
        assert d.name == name and d.function.__doc__ and d.title and d.used_by
        assert "\n" not in d.formula and not d.formula.endswith(".")
    assert len({d.title for d in DEFINITIONS.values()}) == len(DEFINITIONS)
    assert {name for name, d in DEFINITIONS.items() if not d.higher_is_better} == {
        *("fm", "fm_step", "fm_final", "fm_best", "forgetting_first", "avalanche_forgetting", "pyclad_fm"),
        "fm_final_tasks",
        "intransigence",
    }
