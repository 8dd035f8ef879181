"""Statistics over objects and seeds, against scipy, brute force and closed forms."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from iufbench.metrics.aggregate import (
    Estimate,
    borda,
    improvement,
    iqm,
    iqm_estimate,
    performance_profile,
    probability_of_improvement,
    rank_intervals,
    resampled,
)

RNG = np.random.default_rng(3)
A, B = RNG.random((5, 7)), RNG.random((4, 7)) + 0.1
B[:, 2] = A[0, 2]  # ties


def estimate(statistic, *values, resamples=2000):
    """A statistic with its interval, computed for every resample."""
    arrays = [np.sort(v, axis=0) for v in values]
    rng = np.random.default_rng(0)
    drawn = [resampled(a, rng, resamples) for a in arrays]
    low, high = np.quantile([statistic(*sets) for sets in zip(*drawn)], [0.025, 0.975])
    return Estimate(statistic(*arrays), low, high)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 4), (5, 7)])
def test_iqm_is_the_mean_without_a_quarter_at_each_end(shape):
    values = np.random.default_rng(shape[1]).random(shape)
    ordered = sorted(Fraction(v) for v in values.ravel())
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    assert iqm(values) == pytest.approx(float(sum(middle) / len(middle)), abs=1e-15)


def test_profile_by_counting():
    thresholds = [0.0, 0.3, A[1, 1], 0.9, 2.0]
    expected = [sum(v > t for v in A.ravel()) / A.size for t in thresholds]
    np.testing.assert_allclose(performance_profile(A, thresholds), expected)


def test_probability_of_improvement_is_mann_whitneys():
    expected = np.mean(
        [stats.mannwhitneyu(A[:, o], B[:, o]).statistic / (len(A) * len(B)) for o in range(A.shape[1])]
    )
    assert probability_of_improvement(A, B) == pytest.approx(expected)
    both = probability_of_improvement(A, B) + probability_of_improvement(B, A)
    assert both == pytest.approx(1)
    with pytest.raises(ValueError, match="objects"):
        probability_of_improvement(A, B[:, :3])


def test_improvement_is_the_estimate_of_its_probability():
    ties = np.round(A, 1)
    for ours, theirs in ((A, B), (ties, np.round(B, 1))):
        expected = estimate(probability_of_improvement, ours, theirs)
        assert improvement(ours, theirs) == pytest.approx(expected)
    alone = improvement(A[:1], B)
    assert alone.value == probability_of_improvement(A[:1], B) and np.isnan(alone[1:]).all()


@pytest.mark.parametrize("shape", [(2, 1), (3, 1), (2, 3), (4, 4), (5, 7)])
def test_interval_of_the_iqm_is_that_of_every_resample(shape):
    values = np.random.default_rng(shape[1]).random(shape)
    for given in (values, np.round(values, 1), np.full(shape, 0.3)):
        assert iqm_estimate(given) == pytest.approx(estimate(iqm, given), abs=1e-14)


def test_resamples_stay_in_their_stratum():
    rng = np.random.default_rng(0)
    for sample in resampled(A, rng, 20):
        assert all(set(sample[:, o]) <= set(A[:, o]) for o in range(A.shape[1]))


def test_interval_is_that_of_the_exact_bootstrap_distribution():
    """With two seeds and three objects all 2**6 resamples can be listed."""
    values = np.array([[0.1, 0.5, 0.9], [0.3, 0.4, 0.2]])
    columns = [[np.array(pick) for pick in product(values[:, o], repeat=2)] for o in range(3)]
    means = [iqm(np.transpose(pick)) for pick in product(*columns)]
    found = iqm_estimate(values, resamples=20_000)
    assert found.value == iqm(values)
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.02) and found.high == pytest.approx(high, abs=0.02)


def test_intervals_hold_the_value_and_one_seed_has_none():
    found = improvement(A, B, resamples=300)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found == improvement(A[::-1], B, resamples=300)  # order of seeds
    assert iqm_estimate(A) == iqm_estimate(A[::-1])
    alone = iqm_estimate(A[:1])
    assert alone.value == iqm(A[:1]) and np.isnan(alone.low) and np.isnan(alone.high)


def test_many_sets_at_once_give_what_each_gives():
    a, b = np.stack([A, A[::-1] ** 2]), np.stack([B, 1 - B])
    np.testing.assert_array_equal(iqm(a), [iqm(x) for x in a])
    expected = [probability_of_improvement(x, y) for x, y in zip(a, b)]
    np.testing.assert_allclose(probability_of_improvement(a, b), expected)


def test_rank_intervals():
    good, bad = np.full((3, 4), 0.9), np.full((3, 4), 0.1)
    assert rank_intervals([bad, good, good]) == [(3, 3), (1, 1), (1, 1)]
    close = np.array([[0.50, 0.5], [0.52, 0.5]]), np.array([[0.51, 0.5], [0.51, 0.5]])
    assert rank_intervals(close) == [(1, 2), (1, 2)]


def test_borda_by_counting_pairs():
    values = np.round(RNG.random((6, 5)), 1)
    values[1, 2] = values[4, 2] = values[0, 0] = np.nan
    expected = np.zeros(6)
    for column in np.where(np.isnan(values), -1, values).T:
        for i, j in product(range(6), repeat=2):
            expected[i] += (i != j) * ((column[i] > column[j]) + 0.5 * (column[i] == column[j]))
    np.testing.assert_allclose(borda(values), expected)


@pytest.mark.parametrize("bad", [[], [[np.nan]], np.zeros((0, 3))])
def test_values_that_cannot_be_summarised(bad):
    with pytest.raises(ValueError, match="without NaN"):
        iqm(bad)
