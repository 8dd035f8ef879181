"""What one run's raw records say: summaries from its matrix, image metrics from the scores of its images."""

from __future__ import annotations

from collections.abc import Iterator

from iufbench.metrics.continual import fwt, summarise
from iufbench.metrics.image import image_metrics
from iufbench.reporting.store import LEVELS, Run


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


def image_metrics_from_scores(run: Run) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Experience, object and image metrics (name -> value) of every group in ``scores.csv.gz``.

    Raises RunError when the scores are missing or damaged, or no metric can be computed from them.
    """
    for (experience, name), rows in run.scores().groupby(["experience", "object"], sort=False):
        labels, scores = rows["label"].to_numpy(dtype=bool), rows["score"].to_numpy()
        yield int(experience), str(name), image_metrics(labels, scores, list(rows["image"]), str(name))
