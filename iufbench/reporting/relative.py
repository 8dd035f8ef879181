"""Summaries relative to another run: plasticity (``frozen``) and intransigence (``cumulative``)."""

from __future__ import annotations

import numpy as np

from iufbench.metrics.continual import intransigence, plasticity
from iufbench.metrics.values import falls
from iufbench.reporting.store import Matrix, Run


def relative(
    run: Run, level: str, metric: str, frozen: Run | None, cumulative: Run | None
) -> dict[str, float]:
    """``plasticity`` and ``intransigence``, as far as the reference runs allow.

    ``frozen`` and ``cumulative`` have the same seed and conditions as ``run``. Plasticity is omitted if the
    run has its own values of unseen objects (``--eval-unseen``), which take precedence. Both need a metric of
    which higher is better.
    """
    result = {}
    if metric not in run.names(level) or falls(metric):
        return {}
    matrix = run.matrix(level, metric)
    if frozen is not None and metric in frozen.names(level) and not knows_unseen(run, level, metric):
        result["plasticity"] = _plasticity(matrix, frozen.matrix(level, metric))
    if cumulative is not None and metric in cumulative.names(level) and len(matrix.values) > 1:
        reference = _when_new(cumulative.matrix(level, metric))
        values = [reference[name] for name in matrix.objects]
        result["intransigence"] = intransigence(matrix.values, matrix.introduced, values)
    return result


def knows_unseen(run: Run, level: str, metric: str = "auroc") -> bool:
    """Whether later objects were evaluated before they were learnt, right after the base."""
    if metric not in run.names(level):
        return False
    matrix = run.matrix(level, metric)
    return bool((~np.isnan(matrix.values[0, matrix.introduced > 0])).any())


def _plasticity(matrix: Matrix, frozen: Matrix) -> float:
    """The gain over the frozen model's value of each new object; joint training has a single value of it."""
    before = _when_new(frozen)
    zero_shot = [before[name] for name in matrix.objects]
    if len(matrix.values) > 1:
        return plasticity(matrix.values, matrix.introduced, zero_shot)
    later = {name for name, t in zip(frozen.objects, frozen.introduced) if t > 0}
    gains = [v - z for name, v, z in zip(matrix.objects, matrix.values[0], zero_shot) if name in later]
    return float(np.mean(gains)) if gains else float("nan")


def _when_new(matrix: Matrix) -> dict[str, float]:
    """Object -> its value after the experience that introduced it."""
    columns = range(len(matrix.objects))
    return dict(zip(matrix.objects, matrix.values[matrix.introduced, columns]))
