"""Numpy in, floats out: image metrics, pixel metrics and the continual summaries."""
