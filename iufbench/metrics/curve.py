"""Exact threshold curves: AUROC, AP, F1-max and AUPRO of one object from a single sort."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Curve:
    """Counts of positives and normals at every threshold where a positive is found; ties are exact.

    Only the scores of positives matter as thresholds: between two of them, recall and per-region overlap are
    constant. The positives are therefore sorted once, and the normals, in chunks of any size and order, are
    only counted against them. Counts are integers, so the result does not depend on the chunking.

    Undefined values are NaN (no positives; no normals for AUROC and AUPRO), never 0 and never an error.

    Args:
        positives: Scores [P], finite floats, higher is more anomalous.
        regions: Ground-truth region of each positive [P], 0..R-1 without gaps; only needed by ``aupro``.
    """

    def __init__(self, positives: npt.ArrayLike, regions: npt.ArrayLike | None = None) -> None:
        scores = np.asarray(positives)
        weights = None if regions is None else _region_weights(np.asarray(regions))
        if weights is None:
            scores = np.sort(scores)
        else:  # ties sorted by weight: sums do not depend on the order of the images
            order = np.lexsort((weights, scores))
            scores, weights = scores[order], weights[order]
        new = np.ones(scores.size, bool)
        np.not_equal(scores[1:], scores[:-1], out=new[1:])
        (first,) = new.nonzero()
        self.n_positives = scores.size
        self.n_normals = 0
        self.thresholds = scores[first]
        """[U] the distinct scores of positives, ascending."""
        self.hits = scores.size - first
        """[U] positives at or above each threshold."""
        self._equal = self.hits.copy()  # positives at each
        self._equal[:-1] -= self.hits[1:]
        self._above = np.zeros(first.size, np.int64)
        self._at_or_above = np.zeros(first.size, np.int64)
        self._covered = None if weights is None else weights[::-1].cumsum()[::-1][first]

    def add_normals(self, values: np.ndarray) -> None:
        """Count a chunk of normal scores [n], finite floats. Sorts ``values`` in place."""
        values.sort()
        self.n_normals += values.size
        if self.n_positives:
            self._above += values.size - values.searchsorted(self.thresholds, side="right")
            self._at_or_above += values.size - values.searchsorted(self.thresholds, side="left")

    def add_counts(self, above: np.ndarray, at_or_above: np.ndarray, normals: int) -> None:
        """Add normals that were counted elsewhere.

        Args:
            above: Normals above each of ``thresholds``, integers [U].
            at_or_above: Normals at or above each of them, integers [U].
            normals: Their number.
        """
        self.n_normals += normals
        self._above += above
        self._at_or_above += at_or_above

    def auroc(self) -> float:
        """Fraction of correctly ordered (positive, normal) pairs, ties counting half. No flip below 0.5.

        (1 / PN) * sum over pairs of [s+ > s-] + [s+ = s-] / 2, counted in integers; equal to the trapezoid
        over all distinct thresholds (scikit-learn ``roc_auc_score``).
        """
        pairs = self.n_positives * self.n_normals
        if not pairs:
            return float("nan")
        lost = (self._above + self._at_or_above) * self._equal
        return (2 * pairs - int(lost.sum())) / (2 * pairs)

    def ap(self) -> float:
        """Average precision: sum_k (R_k - R_{k-1}) P_k over distinct thresholds, without interpolation.

        As scikit-learn ``average_precision_score``; not the trapezoid under the precision-recall curve.
        """
        if not self.n_positives:
            return float("nan")
        precision = self.hits / (self.hits + self._at_or_above)
        return float((self._equal * precision).sum() / self.n_positives)

    def f1_max(self) -> float:
        """max over all thresholds of 2 TP / (2 TP + FP + FN)."""
        return float(self._f1().max()) if self.n_positives else float("nan")

    def f1_max_threshold(self) -> float:
        """The highest threshold that attains ``f1_max``: scores at or above it count as anomalous."""
        if not self.n_positives:
            return float("nan")
        f1 = self._f1()
        return float(self.thresholds[f1.size - 1 - int(f1[::-1].argmax())])

    def recall_at_fpr(self, limit: float) -> float:
        """The best recall of a threshold with a false-positive rate of at most ``limit``, in [0, 1]."""
        if not (self.n_positives and self.n_normals):
            return float("nan")
        allowed = self._at_or_above / self.n_normals <= limit
        return float(self.hits[allowed].max(initial=0)) / self.n_positives

    def fpr_at_recall(self, least: float) -> float:
        """The lowest false-positive rate of a threshold with a recall of at least ``least`` in (0, 1]."""
        if not (self.n_positives and self.n_normals):
            return float("nan")
        enough = self.hits / self.n_positives >= least
        return float(self._at_or_above[enough].min()) / self.n_normals

    def aupro(self, limit: float) -> float:
        """Area under PRO(FPR) from FPR 0 to ``limit`` (0 < limit <= 1), divided by ``limit``; in [0, 1].

        PRO is the mean over all regions of the fraction of the region at or above the threshold, FPR the
        fraction of all normals. The curve uses every distinct threshold (ties merged), runs from (0, 0) to
        (1, 1) and is interpolated linearly at the limit (Bergmann et al., IJCV 2021; MVTec AD 2).
        A constant map therefore gets limit / 2, not 0.

        Args:
            limit: Upper FPR limit.

        Returns:
            AUPRO, NaN without positives or normals.

        Raises:
            ValueError: The limit is out of range, or the curve was built without ``regions``.
        """
        if self._covered is None:
            raise ValueError("AUPRO needs the region of every positive")
        if not 0 < limit <= 1:
            raise ValueError(f"the FPR limit of AUPRO must be in (0, 1], not {limit}")
        if not (self.n_positives and self.n_normals):
            return float("nan")
        # In descending order, each threshold adds two points: the normals above it move the curve to the
        # right, then the pixels with the same score move it up and right in a straight line.
        pro = np.minimum(self._covered[::-1] / self._covered[0], 1.0)
        rate = np.empty(2 * pro.size + 2)
        rate[0], rate[-1] = 0.0, 1.0
        rate[1:-1:2] = self._above[::-1] / self.n_normals
        rate[2:-1:2] = self._at_or_above[::-1] / self.n_normals
        height = np.empty_like(rate)
        height[0], height[-1] = 0.0, 1.0
        height[1] = 0.0
        height[3:-1:2] = pro[:-1]
        height[2:-1:2] = pro
        return _area(rate, height, limit) / limit

    def _f1(self) -> np.ndarray:
        # 2 TP + FP + FN = (TP + FP) + P
        return 2 * self.hits / (self.hits + self._at_or_above + self.n_positives)


def score_curve(labels: Sequence[bool] | np.ndarray, scores: np.ndarray) -> Curve:
    """Build the curve of one score per image; labels and scores are [N], scores finite."""
    positive = np.asarray(labels, dtype=bool)
    curve = Curve(scores[positive])
    curve.add_normals(scores[~positive])
    return curve


def _region_weights(regions: np.ndarray) -> np.ndarray:
    """1 / (pixels in the region) for each pixel, so that every region has total weight 1."""
    return 1.0 / np.bincount(regions)[regions] if regions.size else np.empty(0)


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoid under the polyline (x ascending, from 0 to 1) up to x = ``limit``."""
    inside = int(np.searchsorted(x, limit, side="right"))
    x, y, after_x, after_y = x[:inside], y[:inside], x[inside : inside + 1], y[inside : inside + 1]
    if after_x.size:
        share = (limit - x[-1]) / (after_x - x[-1])
        y = np.append(y, y[-1] + share * (after_y - y[-1]))
        x = np.append(x, limit)
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)
