"""iufbench: a benchmark harness for incremental unified industrial anomaly detection.

``import iufbench as ib`` is light; what a name needs is imported when the name is used first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from iufbench.support.version import __version__

if TYPE_CHECKING:
    from iufbench.engine.api import (
        explain,
        list_datasets,
        list_protocols,
        list_runs,
        list_strategies,
        run,
    )
    from iufbench.engine.benchmark import make_benchmark, make_strategy
    from iufbench.engine.score import score
    from iufbench.evaluation.anomaly import anomaly_metrics
    from iufbench.evaluation.curves import training_metrics
    from iufbench.reporting.api import board_build, compare, figures, find_runs, report, tables
    from iufbench.reporting.store import Run, load_run
    from iufbench.support.errors import InputError, RunError
    from iufbench.sweeps.api import sweep
    from iufbench.trust.submission import board_check

__all__ = [
    "InputError",
    "Run",
    "RunError",
    "__version__",
    "anomaly_metrics",
    "board_build",
    "board_check",
    "compare",
    "explain",
    "figures",
    "find_runs",
    "list_datasets",
    "list_protocols",
    "list_runs",
    "list_strategies",
    "load_run",
    "make_benchmark",
    "make_strategy",
    "report",
    "run",
    "score",
    "sweep",
    "tables",
    "training_metrics",
]

# Name -> the module that has it.
_LAZY = {
    "InputError": "iufbench.support.errors",
    "Run": "iufbench.reporting.store",
    "RunError": "iufbench.support.errors",
    "anomaly_metrics": "iufbench.evaluation.anomaly",
    "board_build": "iufbench.reporting.api",
    "board_check": "iufbench.trust.submission",
    "compare": "iufbench.reporting.api",
    "explain": "iufbench.engine.api",
    "figures": "iufbench.reporting.api",
    "find_runs": "iufbench.reporting.api",
    "list_datasets": "iufbench.engine.api",
    "list_protocols": "iufbench.engine.api",
    "list_runs": "iufbench.engine.api",
    "list_strategies": "iufbench.engine.api",
    "load_run": "iufbench.reporting.store",
    "make_benchmark": "iufbench.engine.benchmark",
    "make_strategy": "iufbench.engine.benchmark",
    "report": "iufbench.reporting.api",
    "run": "iufbench.engine.api",
    "score": "iufbench.engine.score",
    "sweep": "iufbench.sweeps.api",
    "tables": "iufbench.reporting.api",
    "training_metrics": "iufbench.evaluation.curves",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'iufbench' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
