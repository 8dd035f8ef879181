"""iufbench: a benchmark harness for incremental unified industrial anomaly detection."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from iufbench.support.version import __version__

if TYPE_CHECKING:
    from iufbench.engine.benchmark import make_benchmark, make_strategy
    from iufbench.evaluation.anomaly import anomaly_metrics
    from iufbench.evaluation.curves import training_metrics

# Loaded when they are asked for: they import torch and Avalanche.
_LAZY = {
    "make_benchmark": "iufbench.engine.benchmark",
    "make_strategy": "iufbench.engine.benchmark",
    "anomaly_metrics": "iufbench.evaluation.anomaly",
    "training_metrics": "iufbench.evaluation.curves",
}

__all__ = ["__version__", "anomaly_metrics", "make_benchmark", "make_strategy", "training_metrics"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'iufbench' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
