"""Decisions at a threshold: rules that need no defects, and what a decision is worth.

A score *above* a threshold is an alarm; a score equal to it is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iufbench.metrics.curve import score_curve
from iufbench.metrics.image import grouped_image_metrics
from iufbench.support.errors import InputError

ALLOWED = "quantile 0.95, 0.975, mean+3sd"


@dataclass(frozen=True)
class Rule:
    """How scores of normal samples become a threshold; made by :func:`read_rule`.

    Attributes:
        quantile: Share of the samples that must not raise an alarm, in (0, 1); None for the other rule.
        deviations: k of mean + k standard deviations; used where ``quantile`` is None.
    """

    quantile: float | None = None
    deviations: float = 3.0

    def __str__(self) -> str:
        return f"mean+{self.deviations:g}sd" if self.quantile is None else f"quantile {self.quantile:g}"

    @property
    def nominal(self) -> float | None:
        """The share of normal samples that the rule lets raise an alarm; None for mean + k sd."""
        return None if self.quantile is None else 1 - self.quantile


PIXEL_RULE = Rule(None, 3.0)
"""The rule for pixels, whatever that for images is: a quantile would mark the same share of every image."""


def read_rule(text: str) -> Rule:
    """Parse a threshold rule.

    Args:
        text: ``quantile Q`` or ``Q`` with Q in (0, 1), or ``mean+Ksd`` with K > 0.

    Returns:
        The rule; ``str`` of it is the normal form.

    Raises:
        InputError: The text is not a rule.

    Example:
        >>> print(read_rule("0.95"), "|", read_rule("mean + 3 sd"))
        quantile 0.95 | mean+3sd
    """
    number = r"(\d+\.?\d*|\.\d+)"
    found = re.fullmatch(rf"(?:quantile\s+)?{number}|mean\s*\+\s*{number}\s*sd", text.strip())
    if found:
        quantile, deviations = found.groups()
        if quantile and 0 < float(quantile) < 1:
            return Rule(float(quantile))
        if deviations and 0 < float(deviations) < math.inf:
            return Rule(None, float(deviations))
        if quantile:
            raise InputError(f"threshold {text!r}: the quantile must be between 0 and 1 (such as {ALLOWED})")
    raise InputError(f"threshold {text!r} is not a rule: use one such as {ALLOWED}")


def threshold(scores: npt.ArrayLike, rule: Rule) -> float:
    """The threshold that a rule gives for scores of normal samples.

    ``quantile q``: the smallest score of the samples such that at most a share 1 - q of them is above it
    (``numpy.quantile`` with ``inverted_cdf``). ``mean+ksd``: with the sample standard deviation (n - 1).

    Args:
        scores: Scores of n normal samples, finite, n >= 1 (n >= 2 for mean + k sd).
        rule: As from :func:`read_rule`.

    Returns:
        The threshold; NaN for too few samples.

    Example:
        >>> threshold(range(1, 101), read_rule("quantile 0.95"))
        95.0
    """
    values = np.asarray(scores, dtype=np.float64)
    if rule.quantile is not None:
        return float(np.quantile(values, rule.quantile, method="inverted_cdf")) if values.size else math.nan
    return float(values.mean() + rule.deviations * values.std(ddof=1)) if values.size > 1 else math.nan


def pooled_pixel_threshold(means: npt.ArrayLike, deviations: npt.ArrayLike, rule: Rule = PIXEL_RULE) -> float:
    """mean + k sd over all pixels of equally large maps, from the mean and deviation of each map.

    Args:
        means: Mean of the pixels of each map, float [N].
        deviations: Population standard deviation of the pixels of each map, float [N].
        rule: A mean + k sd rule.

    Returns:
        The threshold; NaN without maps.

    Example:
        >>> maps = np.arange(8.0).reshape(2, 2, 2)
        >>> round(pooled_pixel_threshold(maps.mean((1, 2)), maps.std((1, 2))), 3)
        10.374
        >>> round(float(maps.mean() + 3 * maps.std()), 3)
        10.374
    """
    m, s = np.asarray(means, dtype=np.float64), np.asarray(deviations, dtype=np.float64)
    if not m.size:
        return math.nan
    centre = m.mean()
    return float(centre + rule.deviations * np.sqrt((s**2 + (m - centre) ** 2).mean()))


def guaranteed_false_alarm_rate(samples: int, rule: Rule, confidence: float = 0.95) -> float:
    """The false-alarm rate that a quantile of n normal samples guarantees, without assuming a distribution.

    The threshold is the k-th smallest of n independent scores of the same distribution as those to come;
    the rate of scores above it is then Beta(n - k + 1, k) distributed (Wilks 1941), or smaller with ties.
    No threshold from n samples can promise less than their maximum, k = n: about 3/n at 95 %
    (``1 - 0.05 ** (1 / n)``).

    Args:
        samples: n, the number of calibration samples.
        rule: As from :func:`read_rule`.
        confidence: In (0, 1).

    Returns:
        The rate in (0, 1] that is exceeded with a probability of 1 - ``confidence``; NaN for mean + k sd,
        which guarantees nothing without assuming a distribution.

    Example:
        >>> round(guaranteed_false_alarm_rate(59, read_rule("0.99")), 3)  # the maximum of 59
        0.05
        >>> round(guaranteed_false_alarm_rate(60, read_rule("0.95")), 3)  # the 57th of 60
        0.124
    """
    if rule.quantile is None or samples < 1:
        return math.nan
    from scipy.special import betaincinv  # not for the commands that only read results

    rank = int(threshold(np.arange(1, samples + 1), rule))
    return float(betaincinv(samples - rank + 1, rank, confidence))


def best_guarantee(samples: int, confidence: float = 0.95) -> float:
    """The lowest false-alarm rate that any threshold from n normal samples can guarantee: about 3/n at 95 %.

    Args:
        samples: n >= 1.
        confidence: In (0, 1).

    Returns:
        ``1 - (1 - confidence) ** (1 / n)``: the guarantee of their maximum as the threshold.

    Example:
        >>> [round(best_guarantee(n), 3) for n in (5, 20, 60, 150)]
        [0.451, 0.139, 0.049, 0.02]
    """
    return 1 - (1 - confidence) ** (1 / samples) if samples else math.nan


def decisions(
    labels: Sequence[bool] | np.ndarray, scores: npt.ArrayLike, threshold: float
) -> dict[str, float]:
    """Recall, false-alarm rate and F1 of the decision ``score > threshold``.

    Args:
        labels: [N], true is defective.
        scores: Float [N], finite.
        threshold: The threshold; NaN makes all values NaN.

    Returns:
        ``recall`` = TP / P (NaN without defective samples), ``false_alarm`` = FP / N (NaN without normal
        ones) and ``f1`` = 2 TP / (2 TP + FP + FN) (NaN without defective samples).

    Example:
        >>> decisions([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], 0.5)
        {'recall': 0.5, 'false_alarm': 0.5, 'f1': 0.5}
    """
    defective = np.asarray(labels, dtype=bool)
    alarm = np.asarray(scores, dtype=np.float64) > threshold
    positives, normals = int(defective.sum()), int((~defective).sum())
    hits, false = int((alarm & defective).sum()), int((alarm & ~defective).sum())
    if math.isnan(threshold):
        return dict.fromkeys(("recall", "false_alarm", "f1"), math.nan)
    return {
        "recall": hits / positives if positives else math.nan,
        "false_alarm": false / normals if normals else math.nan,
        "f1": 2 * hits / (hits + false + positives) if positives else math.nan,
    }


def best_f1_threshold(labels: Sequence[bool] | np.ndarray, scores: npt.ArrayLike) -> float:
    """The highest threshold with the best F1 on labelled samples: an oracle, as it needs the defects.

    Args:
        labels: [N], true is defective.
        scores: Float [N], finite.

    Returns:
        A threshold for ``score > threshold``, just below a score of a defective sample; NaN without any.
    """
    found = score_curve(labels, np.array(scores, dtype=np.float64)).f1_max_threshold()
    return float(np.nextafter(found, -np.inf))


def recall_at_false_alarms(
    labels: Sequence[bool] | np.ndarray, scores: npt.ArrayLike, limit: float = 0.05
) -> float:
    """The best recall of any threshold whose false-alarm rate on these samples is at most ``limit``.

    Args:
        labels: [N], true is defective.
        scores: Float [N], finite.
        limit: Highest false-alarm rate, in [0, 1].

    Returns:
        Recall in [0, 1]; NaN without defective or without normal samples.

    Example:
        >>> recall_at_false_alarms([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
        0.5
    """
    return score_curve(labels, np.array(scores, dtype=np.float64)).recall_at_fpr(limit)


def false_alarms_at_recall(
    labels: Sequence[bool] | np.ndarray, scores: npt.ArrayLike, least: float = 0.95
) -> float:
    """The lowest false-alarm rate of any threshold whose recall on these samples is at least ``least``.

    Args:
        labels: [N], true is defective.
        scores: Float [N], finite.
        least: Lowest recall, in (0, 1].

    Returns:
        False-alarm rate in [0, 1]; NaN without defective or without normal samples.

    Example:
        >>> false_alarms_at_recall([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
        0.5
    """
    return score_curve(labels, np.array(scores, dtype=np.float64)).fpr_at_recall(least)


def segmentation(masks: np.ndarray, maps: np.ndarray, threshold: float) -> dict[str, float]:
    """Pixel F1 (Dice) and IoU of ``map > threshold``, counted over the pixels of all images together.

    Args:
        masks: bool [N, H, W], true is defective.
        maps: Float [N, H, W], higher is more anomalous.
        threshold: The threshold; NaN makes both values NaN.

    Returns:
        ``seg_f1`` = 2 TP / (2 TP + FP + FN) and ``iou`` = TP / (TP + FP + FN); NaN without a defective pixel.

    Example:
        >>> mask = np.array([[[True, True, False, False]]])
        >>> segmentation(mask, np.array([[[0.9, 0.2, 0.8, 0.1]]]), 0.5) == {"seg_f1": 0.5, "iou": 1 / 3}
        True
    """
    level = np.float64(threshold)
    hits = marked = 0
    for mask, image in zip(masks, maps):
        alarm = image > level
        marked += int(alarm.sum())
        hits += int((alarm & mask).sum())
    defective = int(masks.sum())
    if not defective or math.isnan(threshold):
        return {"seg_f1": math.nan, "iou": math.nan}
    return {"seg_f1": 2 * hits / (marked + defective), "iou": hits / (marked + defective - hits)}


def pooled_auroc(groups: Iterable[tuple[Sequence[bool] | np.ndarray, npt.ArrayLike]]) -> tuple[float, float]:
    """AUROC over the pooled samples of all groups, and how much the mean over groups is above it.

    Args:
        groups: Labels [N] (true is defective) and scores [N] of each group, such as an object.

    Returns:
        The pooled AUROC (that of one threshold for all groups) and the gap: mean of the groups' AUROCs minus
        the pooled one, large where the scores of groups differ in scale. NaN where undefined.

    Example:
        >>> pooled_auroc([([0, 1], [0.1, 0.2]), ([0, 1], [0.3, 0.4])])
        (0.75, 0.25)
    """
    pairs = list(groups)
    if not pairs:
        return math.nan, math.nan
    labels, scores = (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*pairs))
    group = np.repeat(np.arange(len(pairs)), [len(labels) for labels, _ in pairs])
    labels, scores = labels.astype(bool), scores.astype(np.float64)
    own = float(np.mean(grouped_image_metrics(labels, scores, group, len(pairs))["auroc"]))
    pooled = score_curve(labels, scores).auroc()
    return pooled, own - pooled
