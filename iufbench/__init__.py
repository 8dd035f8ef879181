"""iufbench: a benchmark harness for incremental unified industrial anomaly detection."""

__version__ = "0.1.0"
