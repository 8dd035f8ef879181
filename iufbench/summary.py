"""The continual summaries of one run, always computed from its matrix and never taken from a file."""

from __future__ import annotations

from iufbench.metrics.continual import summarise
from iufbench.store import Run


def summaries(run: Run, metric: str = "auroc") -> dict[str, dict[str, float]]:
    """level -> summary name (acc, acc_final, fm, ...) -> value; levels without data are absent."""
    result = {}
    for level in ("image", "pixel"):
        if metric in run.names(level):
            matrix = run.matrix(level, metric)
            result[level] = summarise(matrix.values, matrix.introduced)
    return result
