"""Statistics over many objects and seeds, with the definitions of rliable (Agarwal et al., NeurIPS 2021).

Values are float64 [seeds, objects] in [0, 1], higher is better; statistics also take several such sets at
once, [..., seeds, objects]. A bootstrap resample draws seeds with replacement for each object on its own (the
objects are strata), so intervals are about seeds: which objects there are is taken as given. With one seed
there is nothing to resample and intervals are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iufbench.metrics.definition import Definition
from iufbench.metrics.statistics import percentile_interval

RESAMPLES = 2000
AT_ONCE = 2**17  # values that are resampled at a time: they fit the processor's cache
NAN = float("nan")


class Estimate(NamedTuple):
    """A value with its percentile bootstrap interval; ``low`` and ``high`` are NaN with one seed."""

    value: float
    low: float
    high: float


def iqm(values: npt.ArrayLike) -> np.ndarray | np.float64:
    """Interquartile mean: mean of the middle half of all values [..., seeds, objects].

    A quarter of the values (rounded down) is cut off at both ends.

    >>> float(iqm([[0.1, 0.4], [0.6, 0.9]]))
    0.5
    """
    array = _checked(values)
    array = array.reshape(*array.shape[:-2], -1)
    cut = array.shape[-1] // 4
    kept = np.partition(array, (cut, array.shape[-1] - cut - 1))[..., cut : array.shape[-1] - cut]
    return kept.mean(axis=-1)


def performance_profile(values: npt.ArrayLike, thresholds: npt.ArrayLike) -> np.ndarray:
    """Share of all values [seeds, objects] above each threshold [K], float64 [K].

    >>> performance_profile([[0.1, 0.4], [0.6, 0.9]], [0.0, 0.4, 0.95]).tolist()
    [1.0, 0.5, 0.0]
    """
    ordered = np.sort(_checked(values), axis=None)
    return 1 - np.searchsorted(ordered, np.asarray(thresholds), side="right") / ordered.size


def probability_of_improvement(a: npt.ArrayLike, b: npt.ArrayLike) -> np.ndarray | np.float64:
    """Probability that a random seed of a is better than one of b on a random object; ties count half.

    The mean over objects of the Mann-Whitney statistic U / (n m).

    Args:
        a: Values [..., n, objects].
        b: Values [..., m, objects] of the same objects.

    Returns:
        Values in [0, 1]; 0.5 where neither is better.
    """
    first, second = _checked(a), _checked(b)
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(f"{first.shape[-1]} and {second.shape[-1]} objects: they must be the same")
    difference = first[..., :, None, :] - second[..., None, :, :]
    return np.heaviside(difference, 0.5).mean(axis=(-3, -2, -1))


def iqm_estimate(
    values: npt.ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """``iqm`` with its stratified percentile bootstrap interval.

    The values are sorted once; a resample weights them by how often they were drawn.

    Args:
        values: Values [seeds, objects].
        confidence: Level of the interval, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The interquartile mean and its interval, whose ends are NaN with one seed.
    """
    array = np.sort(_checked(values), axis=0)  # independent of the order of seeds
    value = float(iqm(array))
    if len(array) < 2:
        return Estimate(value, NAN, NAN)
    (drawn,) = _times_drawn((array.shape,), resamples, seed)
    order = array.argsort(axis=None)
    ordered, cut = array.ravel()[order], order.size // 4
    below = drawn.reshape(order.size, resamples)[order]
    for i in range(1, order.size):  # several times as fast as cumsum along the first axis
        below[i] += below[i - 1]
    below.clip(cut, order.size - cut, out=below)
    # Of the middle half, (below - cut) / kept are at or below each value.
    span, kept = ordered[-1] - ordered[0], order.size - 2 * cut
    found = ordered[-1] - (np.diff(ordered) @ below[:-1] - cut * span) / kept
    return _with_interval(value, found, confidence)


def _with_interval(value: float, found: np.ndarray, confidence: float) -> Estimate:
    """A value with the percentile interval of its resamples [R]."""
    return Estimate(value, *percentile_interval(found, confidence))


def improvement(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """``probability_of_improvement`` with its stratified percentile bootstrap interval.

    Each pair of seeds is compared once; a resample weights it by how often both seeds were drawn.

    Args:
        a: Values [n, objects].
        b: Values [m, objects] of the same objects.
        confidence: Level of the interval, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The probability and its interval, whose ends are NaN where an array has one seed.
    """
    first, second = (np.sort(_checked(v), axis=0) for v in (a, b))
    value = float(probability_of_improvement(first, second))
    if min(len(first), len(second)) < 2:
        return Estimate(value, NAN, NAN)
    drawn = _times_drawn((first.shape, second.shape), resamples, seed)
    better = np.heaviside(first.T[:, :, None] - second.T[:, None, :], 0.5)
    wins = better.transpose(0, 2, 1) @ drawn[0].transpose(1, 0, 2)
    found = np.einsum("omr,mor->r", wins, drawn[1]) / (first.size * len(second))
    return _with_interval(value, found, confidence)


@lru_cache(maxsize=4)
def _times_drawn(shapes: tuple[tuple[int, int], ...], resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    """How often each of [seeds, objects] is in a stratified resample: float64 [seeds, objects, resamples]."""
    rng, found = np.random.default_rng(seed), []
    for shape in shapes:
        counts, start, size = np.empty((*shape, resamples)), 0, math.prod(shape)
        for places in _drawn(shape, rng, resamples):
            places += size * np.arange(len(places))[:, None, None]
            times = np.bincount(places.ravel(), minlength=places.size).reshape(len(places), *shape)
            counts[..., start : start + len(places)] = np.moveaxis(times, 0, -1)
            start += len(places)
        found.append(counts)
    return tuple(found)


def resampled(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Stratified resamples of values [seeds, objects]: seeds are drawn for each object on its own.

    Returns:
        float64 [resamples, seeds, objects].
    """
    return np.concatenate([values.ravel()[places] for places in _drawn(values.shape, rng, resamples)])


def _drawn(shape: tuple[int, ...], rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Yield the flat places in [seeds, objects] of stratified resamples: int [some, seeds, objects]."""
    seeds, objects = shape
    block = max(1, AT_ONCE // (seeds * objects))
    for start in range(0, resamples, block):
        drawn = rng.integers(seeds, size=(min(block, resamples - start), seeds, objects))
        drawn *= objects
        drawn += np.arange(objects)
        yield drawn


def rank_intervals(
    methods: Sequence[npt.ArrayLike],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    decimals: int = 12,
) -> list[tuple[int, int]]:
    """Interval of the rank of each method by its mean over objects and seeds, 1 is best.

    Args:
        methods: One array [seeds, objects] a method. One with a single seed is not resampled, so its interval
            only shows the spread of the others.
        confidence: Level of the intervals.
        resamples: Number of resamples of all methods together.
        seed: Seed of the resampling.
        decimals: Means that agree to so many decimals share a rank.

    Returns:
        Lowest and highest rank of each method.
    """
    arrays = [np.sort(_checked(m), axis=0) for m in methods]
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, len(arrays)))
    for k, values in enumerate(arrays):
        drawn = _drawn(values.shape, rng, resamples)
        means[:, k] = np.concatenate([values.ravel()[places].mean(axis=(1, 2)) for places in drawn])
    ranks = best_first_ranks(np.round(means, decimals))
    tail = (1 - confidence) / 2
    low = np.quantile(ranks, tail, axis=0, method="lower")
    high = np.quantile(ranks, 1 - tail, axis=0, method="higher")
    return [(int(a), int(b)) for a, b in zip(low, high)]


def best_first_ranks(values: npt.ArrayLike) -> np.ndarray:
    """The rank of each value in its row, from 1; equal values share the best rank.

    Args:
        values: [..., n], higher is better.

    Returns:
        int [..., n].

    Example:
        >>> best_first_ranks([0.7, 0.9, 0.7, 0.5])
        array([2, 1, 2, 4])
    """
    array = np.asarray(values)
    better = [(array > own[..., None]).sum(axis=-1) for own in np.moveaxis(array, -1, 0)]
    return 1 + np.stack(better, axis=-1)


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
    beaten = [(own > filled).sum() + ((own == filled).sum() - filled.shape[1]) / 2 for own in filled]
    return np.array(beaten, dtype=np.float64)


def _checked(values: npt.ArrayLike) -> np.ndarray:
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if not array.size or np.isnan(array).any():
        raise ValueError(f"values must be [seeds, objects] without NaN, not {array.shape}")
    return array


VALUES = "the values R[T-1,o] of all objects and seeds after the last experience"
BOOTSTRAP = "95 % interval: percentile bootstrap, seeds resampled for each object (stratified)"
AGGREGATES: dict[str, Definition] = {
    d.name: d
    for d in (
        Definition(
            "iqm",
            "IQM",
            f"interquartile mean: mean of the middle half of {VALUES}; {BOOTSTRAP}",
            "rliable (Agarwal 2021)",
            True,
            iqm,
        ),
        Definition(
            "rank_interval",
            "rank interval",
            "95 % interval of the rank by ACC-final when the seeds of all strategies are resampled for each "
            "object (stratified percentile bootstrap)",
            "this harness",
            False,
            rank_intervals,
        ),
        Definition(
            "probability_of_improvement",
            "P(better)",
            "mean over objects of the probability that a random seed of one strategy has a higher R[T-1,o] "
            f"than one of another, ties counting half; {BOOTSTRAP}",
            "rliable (Agarwal 2021)",
            True,
            probability_of_improvement,
        ),
        Definition(
            "performance_profile",
            "performance profile",
            f"share of {VALUES} above a threshold, as a function of the threshold",
            "rliable (Agarwal 2021); Dolan 2002",
            True,
            performance_profile,
        ),
        Definition(
            "borda",
            "Borda count",
            "sum over protocols of the number of strategies with a lower ACC-final, ties counting half; a "
            "strategy without a value is below all others",
            "MTEB",
            True,
            borda,
        ),
    )
}
"""Statistics of several runs: of all seeds and objects, or of all protocols."""
