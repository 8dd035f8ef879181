"""Statistics over many objects and seeds, with the definitions of rliable (Agarwal et al., NeurIPS 2021).

Values are float64 [seeds, objects] in [0, 1], higher is better. A bootstrap resample draws seeds with
replacement for each object on its own (the objects are strata), so intervals are about seeds: which objects
there are is taken as given. With one seed there is nothing to resample and intervals are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 2000
NAN = float("nan")


class Estimate(NamedTuple):
    """A value with its percentile bootstrap interval; ``low`` and ``high`` are NaN with one seed."""

    value: float
    low: float
    high: float


def iqm(values: npt.ArrayLike) -> float:
    """Interquartile mean: mean of the middle half of all values [seeds, objects].

    A quarter of the values (rounded down) is cut off at both ends.

    >>> iqm([[0.1, 0.4], [0.6, 0.9]])
    0.5
    """
    return float(stats.trim_mean(_checked(values), 0.25, axis=None))


def performance_profile(values: npt.ArrayLike, thresholds: npt.ArrayLike) -> np.ndarray:
    """Share of all values [seeds, objects] above each threshold [K], float64 [K].

    >>> performance_profile([[0.1, 0.4], [0.6, 0.9]], [0.0, 0.4, 0.95]).tolist()
    [1.0, 0.5, 0.0]
    """
    ordered = np.sort(_checked(values), axis=None)
    return 1 - np.searchsorted(ordered, np.asarray(thresholds), side="right") / ordered.size


def probability_of_improvement(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Probability that a random seed of a is better than one of b on a random object; ties count half.

    The mean over objects of the Mann-Whitney statistic U / (n m).

    Args:
        a: Values [n, objects].
        b: Values [m, objects] of the same objects.

    Returns:
        A value in [0, 1]; 0.5 where neither is better.
    """
    first, second = _checked(a), _checked(b)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} objects: they must be the same")
    difference = first[:, None, :] - second[None, :, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def estimate(
    statistic: Callable[..., float],
    *values: npt.ArrayLike,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """A statistic with its stratified percentile bootstrap interval.

    Args:
        statistic: A function of the arrays, such as ``iqm`` or ``probability_of_improvement``.
        values: Arrays [seeds, objects], resampled independently of each other.
        confidence: Level of the interval, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The value and its interval, whose ends are NaN where an array has one seed.
    """
    arrays = [np.sort(_checked(v), axis=0) for v in values]  # independent of the order of seeds
    value = statistic(*arrays)
    if min(len(a) for a in arrays) < 2:
        return Estimate(value, NAN, NAN)
    rng = np.random.default_rng(seed)
    found = [statistic(*(resampled(a, rng) for a in arrays)) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def resampled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One stratified resample of values [seeds, objects]: seeds are drawn for each object on its own."""
    seeds = rng.integers(len(values), size=values.shape)
    return np.take_along_axis(values, seeds, axis=0)


def rank_intervals(
    methods: Sequence[npt.ArrayLike], confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[int, int]]:
    """Interval of the rank of each method by its mean over objects and seeds, 1 is best.

    Args:
        methods: One array [seeds, objects] a method. One with a single seed is not resampled, so its interval
            only shows the spread of the others.
        confidence: Level of the intervals.
        resamples: Number of resamples of all methods together.
        seed: Seed of the resampling.

    Returns:
        Lowest and highest rank of each method.
    """
    arrays = [np.sort(_checked(m), axis=0) for m in methods]
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, len(arrays)))
    for k, values in enumerate(arrays):
        picks = rng.integers(len(values), size=(resamples, *values.shape))
        means[:, k] = np.take_along_axis(values[None], picks, axis=1).mean(axis=(1, 2))
    ranks = stats.rankdata(-np.round(means, 12), method="min", axis=1)
    tail = (1 - confidence) / 2
    low = np.quantile(ranks, tail, axis=0, method="lower")
    high = np.quantile(ranks, 1 - tail, axis=0, method="higher")
    return [(int(a), int(b)) for a, b in zip(low, high)]


def borda(values: npt.ArrayLike) -> np.ndarray:
    """Borda count of each method over protocols (as MTEB ranks): how many others it beats, ties count half.

    Args:
        values: [methods, protocols], NaN where a method was not measured: beaten there by all others.

    Returns:
        Sum over protocols, float64 [methods].

    >>> borda([[0.9, 0.8], [0.7, 0.8], [0.5, float("nan")]]).tolist()
    [3.5, 2.5, 0.0]
    """
    table = np.asarray(values, dtype=np.float64)
    filled = np.where(np.isnan(table), -np.inf, table)
    return (stats.rankdata(filled, method="average", axis=0) - 1).sum(axis=1)


def _checked(values: npt.ArrayLike) -> np.ndarray:
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if array.ndim != 2 or not array.size or np.isnan(array).any():
        raise ValueError(f"values must be [seeds, objects] without NaN, not {array.shape}")
    return array
