"""iufbench: a benchmark harness for incremental unified industrial anomaly detection."""

from iufbench.support.version import __version__

__all__ = ["__version__"]
