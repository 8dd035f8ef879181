"""Scores that are no numbers end the evaluation: ranking them would give a plausible, wrong value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iufbench.support.errors import RunError


def require_finite(scores: np.ndarray, names: Sequence[str] | None, object: str, start: int = 0) -> None:
    """Raise RunError naming ``object`` and the first image whose scores are NaN or infinite.

    scores: [n] or [n, H, W], of the images ``start``, ``start + 1``, ...; names: of all images, or None.
    """
    finite = np.isfinite(scores)
    if finite.all():
        return
    index = int(np.flatnonzero(~finite.reshape(len(scores), -1).all(axis=1))[0])
    image = f"image {start + index}" if names is None else names[start + index]
    kind = "NaN" if np.isnan(scores[index]).any() else "infinite"
    raise RunError(
        f"{object}: the anomaly scores of {image} are {kind}, so nothing can be ranked; "
        "see whether the loss in train_log.csv diverged"
    )
