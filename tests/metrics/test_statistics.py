"""Statistics over seeds against scipy, numpy and counting by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from iufbench.metrics.statistics import bootstrap_interval, compare, effect_size, sign_flip_p, spread

VALUES = [0.91, 0.88, 0.93, 0.90, 0.86]


def test_spread_of_five_seeds():
    s = spread(VALUES)
    assert (s.n, s.mean) == (5, pytest.approx(0.896))
    assert s.std == pytest.approx(math.sqrt(sum((v - 0.896) ** 2 for v in VALUES) / 4))
    assert min(VALUES) <= s.low < s.mean < s.high <= max(VALUES)


@pytest.mark.parametrize("n, mean", [(0, math.nan), (1, 0.91)])
def test_too_few_values_have_no_spread(n, mean):
    s = spread(VALUES[:n])
    assert s.n == n and s.mean == pytest.approx(mean, nan_ok=True)
    assert all(math.isnan(v) for v in (s.std, s.low, s.high))


def test_a_missing_value_is_not_averaged_over():
    s = spread([0.9, math.nan, 0.8])
    assert s.n == 3 and all(math.isnan(v) for v in (s.mean, s.std, s.low, s.high))


def test_interval_is_the_percentile_bootstrap():
    every_draw = [np.mean(draw) for draw in itertools.product(VALUES, repeat=5)]
    exact = np.quantile(every_draw, [0.025, 0.975])
    assert bootstrap_interval(VALUES) == pytest.approx(tuple(exact), abs=2e-3)
    assert bootstrap_interval(VALUES, confidence=0.5) == pytest.approx(
        tuple(np.quantile(every_draw, [0.25, 0.75])), abs=2e-3
    )


@pytest.mark.parametrize("n", [2, 5, 17])
def test_interval_is_that_of_scipy(n):
    values = np.random.default_rng(n).random(n)
    theirs = stats.bootstrap(
        (np.sort(values),), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_interval_is_repeatable_in_any_order():
    assert bootstrap_interval(VALUES) == bootstrap_interval(VALUES) == bootstrap_interval(VALUES[::-1])
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_comparison_uses_common_seeds_only():
    a, b = {0: 0.9, 1: 0.8, 2: 0.85, 7: 0.1}, {2: 0.80, 1: 0.78, 0: 0.86, 9: 0.99}
    c = compare(a, b)
    assert c.seeds == (0, 1, 2)
    assert c.differences == pytest.approx((0.04, 0.02, 0.05))
    assert c.spread.n == 3 and c.spread.mean == pytest.approx(0.11 / 3)
    assert c.effect == pytest.approx(np.mean(c.differences) / np.std(c.differences, ddof=1))
    assert c.p_value == pytest.approx(2 / 8)  # the least three pairs can give
    back = compare(b, a)
    assert (back.effect, back.p_value) == (pytest.approx(-c.effect), c.p_value)


def test_nothing_in_common():
    c = compare({0: 1.0}, {1: 1.0})
    assert c.seeds == () and c.spread.n == 0
    assert all(math.isnan(v) for v in (c.spread.mean, c.effect, c.p_value))


def test_one_pair_and_equal_differences_have_no_effect_size():
    assert math.isnan(effect_size([0.3])) and math.isnan(effect_size([0.25, 0.25, 0.25]))
    assert math.isnan(sign_flip_p([0.3]))
    assert sign_flip_p([0.0, 0.0]) == 1.0


@settings(max_examples=100)
@given(st.lists(st.integers(-5, 5).map(lambda v: v / 10), min_size=2, max_size=9))
@example([0.2, 0.4, -0.2, -0.4])  # sums that are zero but for rounding errors
def test_p_value_by_counting_every_sign_pattern(differences):
    d = np.array(differences)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=len(d))]
    expected = np.mean([s >= abs(d.sum()) - 1e-9 for s in sums])
    assert sign_flip_p(differences) == pytest.approx(expected, abs=1e-12)


def test_one_sided_p_values_by_counting():
    """Of the 8 sign patterns of 1, 2, 4 only +++ sums to 7 or more, and of 1, 2, -4 five to -1 or more."""
    assert sign_flip_p([0.1, 0.2, 0.4], "greater") == pytest.approx(1 / 8)
    assert sign_flip_p([0.1, 0.2, -0.4], "greater") == pytest.approx(5 / 8)
    assert sign_flip_p([0.1, 0.2, -0.4], "less") == pytest.approx(4 / 8)


def test_many_pairs_are_drawn_from_a_fixed_seed():
    d = np.random.default_rng(0).normal(0.4, 1, 30)
    assert sign_flip_p([0.1] * 30) == pytest.approx(2 / 10_000)  # the least that 9,999 draws can give
    assert sign_flip_p(list(d)) == sign_flip_p(list(d))
    assert sign_flip_p(list(d)) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
