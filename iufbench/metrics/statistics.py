"""Several seeds: mean, spread and a bootstrap interval; two strategies compared over common seeds.

Pure functions; random numbers come from a fixed seed and values are sorted first, so the same values give
the same interval in any order. A missing value (NaN) makes the result NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NAN = float("nan")
MAX_PAIRS = 40
RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """What n values say: ``std`` has ddof 1, ``low``..``high`` is the interval of the mean.

    NaN where undefined: ``std``, ``low`` and ``high`` need two values, ``mean`` one.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Paired comparison a - b. ``effect`` is Cohen's d_z = mean / std of the differences.

    ``p_value`` is the exact two-sided sign-flip test; with n pairs it cannot be below 2 / 2**n.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    spread: Spread
    effect: float
    p_value: float


def spread(values: Sequence[float], confidence: float = 0.95) -> Spread:
    """Mean, standard deviation, n and bootstrap interval of one value per seed."""
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else NAN
    std = float(x.std(ddof=1)) if x.size > 1 else NAN
    return Spread(x.size, mean, std, *bootstrap_interval(values, confidence))


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979). NaN with fewer than two values.

    With the usual three to five seeds it is narrow and rough (it never leaves the range of the values).
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.size < 2 or np.isnan(x).any():
        return NAN, NAN
    draws = np.random.default_rng(seed).integers(0, x.size, size=(resamples, x.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(x[draws].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def compare(a: Mapping[int, float], b: Mapping[int, float], confidence: float = 0.95) -> Comparison:
    """Compare two strategies, seed -> value each, over the seeds both have; none: n = 0 and NaN."""
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
    """Cohen's d_z: mean of the paired differences over their standard deviation (ddof 1), NaN if 0."""
    x = np.asarray(differences, dtype=np.float64)
    if x.size < 2 or np.ptp(x) == 0:
        return NAN
    return float(x.mean() / x.std(ddof=1))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value: the share of all 2**n sign patterns whose |sum| is at least the observed one.

    Exact for up to 40 pairs: the sums of the two halves are counted against each other, 2**(n/2) at a time.
    Raises ValueError for more pairs. NaN without pairs.
    """
    x = np.abs(np.asarray(differences, dtype=np.float64))
    if not x.size or np.isnan(x).any():
        return NAN
    if x.size > MAX_PAIRS:
        raise ValueError(f"{x.size} pairs: the exact test counts at most {MAX_PAIRS}")
    observed = abs(float(np.sum(np.asarray(differences, dtype=np.float64))))
    bound = observed - 1e-12 * float(x.sum())  # sums that differ by rounding only are equal
    one, other = _signed_sums(x[::2]), np.sort(_signed_sums(x[1::2]))
    # sum >= bound in one tail; the other tail mirrors it. At bound <= 0 every pattern counts.
    tail = int((other.size - np.searchsorted(other, bound - one, side="left")).sum())
    return 1.0 if bound <= 0 else 2 * tail / 2**x.size


def _signed_sums(x: np.ndarray) -> np.ndarray:
    """All 2**n sums of +-x."""
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    return sums
