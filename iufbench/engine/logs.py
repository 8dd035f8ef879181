"""Loggers of a run (``--logger``): they belong to the harness and are not accessible to strategies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from iufbench.engine.assembly import Parts
from iufbench.engine.plan import Plan
from iufbench.engine.resume import Start
from iufbench.evaluation.loggers import close, make_loggers
from iufbench.evaluation.rows import MetricRow
from iufbench.reporting.rundir import METRIC_COLUMNS, METRICS, read_rows


@contextmanager
def logging_to(names: Sequence[str], plan: Plan, parts: Parts, start: Start) -> Iterator[None]:
    """Context manager: send training and evaluation results to the named loggers.

    A resumed run continues the logs of the earlier process: entries that will be repeated are purged, and its
    matrix contains the rows that were evaluated before.
    """
    if not names:
        yield
        return
    clock = vars(parts.strategy.clock) if start.inside is None else start.inside["clock"]
    after = None if start.is_beginning else int(clock["train_iterations"])
    loggers = make_loggers(names, plan.path, plan.id, plan.recipe.as_dict(), after)
    evaluation = parts.evaluation
    evaluation.log_to(loggers)
    if start.evaluated:
        for row in read_rows(plan.path / METRICS, METRIC_COLUMNS):
            value = MetricRow(
                row["object"], row["level"], row["metric"], float(row["value"] or "nan"), row["seen"] == "1"
            )
            evaluation.matrix.recall(int(row["experience"]), evaluation.tests, [value])
    try:
        yield
    finally:
        close(loggers)
