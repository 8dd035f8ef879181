"""Statistics over seeds: mean, spread, bootstrap interval, and paired comparison of two strategies.

Pure functions. Random numbers come from a fixed seed and values are sorted first, so the interval does not
depend on the order of the values. A missing value (NaN) makes the result NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

NAN = float("nan")
RESAMPLES = 9_999


@dataclass(frozen=True)
class Spread:
    """Summary of n values: ``std`` has ddof 1, ``low``..``high`` is the confidence interval of the mean.

    NaN where undefined: ``std``, ``low`` and ``high`` need two values, ``mean`` needs one.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Paired comparison a - b. ``effect`` is Cohen's d_z = mean / std of the differences.

    ``p_value`` is the two-sided sign-flip test; with n pairs it cannot be below 2 / 2**n.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    spread: Spread
    effect: float
    p_value: float


def spread(values: Sequence[float], confidence: float = 0.95) -> Spread:
    """Compute n, mean, standard deviation (ddof 1) and bootstrap interval of one value per seed."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else NAN
    std = float(x.std(ddof=1)) if x.size > 1 else NAN
    return Spread(x.size, mean, std, *bootstrap_interval(values, confidence))


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean (Efron 1979).

    With the usual three to five seeds it is narrow and approximate (it never leaves the range of the values).

    Args:
        values: One value per seed.
        confidence: Confidence level in (0, 1).
        seed: Seed of the resampling.

    Returns:
        Lower and upper bound, NaN with fewer than two values.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.size < 2 or np.isnan(x).any():
        return NAN, NAN
    return percentile_interval(x[_drawn(x.size, seed)].mean(axis=1), confidence)


@lru_cache(maxsize=1)
def _drawn(n: int, seed: int) -> np.ndarray:
    """The places of the values in each bootstrap resample of n values: int [RESAMPLES, n]."""
    return np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))


def percentile_interval(found: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ends of the percentile interval of bootstrap resamples [R] at a confidence in (0, 1)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def compare(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Comparison:
    """Compare two strategies (seed -> value) over their common seeds; if there are none, n = 0 and NaN."""
    seeds = tuple(sorted(a.keys() & b.keys()))
    differences = tuple(float(a[seed]) - float(b[seed]) for seed in seeds)
    return Comparison(
        seeds,
        differences,
        spread(differences, confidence),
        effect_size(differences),
        sign_flip_p(differences),
    )


def effect_size(differences: Sequence[float]) -> float:
    """Cohen's d_z: mean of the paired differences over their standard deviation (ddof 1), NaN if it is 0."""
    x = np.asarray(differences, dtype=np.float64)
    if x.size < 2 or np.ptp(x) == 0:
        return NAN
    return float(x.mean() / x.std(ddof=1))


def _mean_without_rounding_errors(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean, such that sums that are equal but for their rounding errors are ties of the test."""
    return np.asarray(np.round(np.mean(x, axis=axis), 12))


def sign_flip_p(
    differences: Sequence[float], alternative: Literal["two-sided", "greater", "less"] = "two-sided"
) -> float:
    """Compute the p-value of the paired sign-flip permutation test for a mean difference of zero.

    All 2**n sign patterns are enumerated for up to 13 pairs, beyond that 9,999 random ones from a fixed seed.

    Args:
        differences: Paired differences.
        alternative: Alternative hypothesis about the mean difference.

    Returns:
        The p-value in [0, 1], NaN with fewer than two pairs.
    """
    x = np.asarray(differences, dtype=np.float64)
    if x.size < 2 or np.isnan(x).any():
        return NAN
    from scipy import stats  # half of the time in which the light commands start

    found = stats.permutation_test(
        (x,),
        _mean_without_rounding_errors,
        permutation_type="samples",
        alternative=alternative,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
