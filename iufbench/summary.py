"""The continual summaries of one run, always computed from its matrix and never taken from a file."""

from __future__ import annotations

from iufbench.metrics.continual import fwt, summarise
from iufbench.store import LEVELS, Run


def summary_of(run: Run, level: str, metric: str = "auroc") -> dict[str, float]:
    """summary name (acc, acc_final, fm, ...) -> value; empty where the run lacks the metric.

    ``fwt`` is there when the untrained learner was measured (``--eval-unseen``).
    """
    if metric not in run.names(level):
        return {}
    matrix = run.matrix(level, metric)
    result = summarise(matrix.values, matrix.introduced)
    baseline = run.baseline(level, metric)
    if baseline is not None:
        result["fwt"] = fwt(matrix.values, matrix.introduced, baseline)
    return result


def summaries(run: Run, metric: str = "auroc") -> dict[str, dict[str, float]]:
    """level -> ``summary_of``; levels without data are absent."""
    found = {level: summary_of(run, level, metric) for level in LEVELS}
    return {level: values for level, values in found.items() if values}
