"""Rejects NaN and infinite scores: ranking them would give plausible but wrong metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iufbench.support.errors import RunError


def require_finite(scores: np.ndarray, names: Sequence[str] | None, object: str, start: int = 0) -> None:
    """Check that all scores are finite.

    Args:
        scores: [n] or [n, H, W], for the images ``start``, ``start + 1``, ...
        names: Names of all images, or None.
        object: Name of the object, for the message.
        start: Index of the first image.

    Raises:
        RunError: A score is NaN or infinite; the message names the object and the first such image.
    """
    finite = np.isfinite(scores)
    if finite.all():
        return
    index = int(np.flatnonzero(~finite.reshape(len(scores), -1).all(axis=1))[0])
    image = f"image {start + index}" if names is None else names[start + index]
    kind = "NaN" if np.isnan(scores[index]).any() else "infinite"
    raise RunError(
        f"{object}: the anomaly scores of {image} are {kind}, so nothing can be ranked; "
        "check whether the loss in train_log.csv diverged"
    )
