"""Anomaly maps as overlays: the image, coloured where its map is high."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from iufbench.reporting.store import Run

SIDE = 512  # maximum length of the longer side in pixels
OPACITY = 0.65  # opacity at the upper end of the scale and above
REACH = 3.0


class Scale(NamedTuple):
    """The values of an anomaly map that are shown without colour (``low``) and in full colour (``high``)."""

    low: float
    high: float


def scale_of(run: Run, objects: Sequence[str] | None = None) -> Scale:
    """Determine the colour scale of a run from the scores of its test images after the last experience.

    ``low`` is the median score of good images. ``high`` is three times as far above it as their 95 %
    quantile, or the 95 % quantile of all test images, whichever is higher. All overlays of a run share the
    scale, so a good image remains uncoloured.

    Args:
        run: A complete run.
        objects: Only their images; None: those of all objects.

    Returns:
        The scale, in the unit of the maps.

    Raises:
        RunError: The scores are missing or corrupted.
    """
    scores = run.scores()
    scores = scores[scores["experience"] == len(run.experiences) - 1]
    if objects is not None:
        scores = scores[scores["object"].isin(list(objects))]
    good = scores.loc[scores["label"] == 0, "score"].to_numpy()
    known = good if len(good) else scores["score"].to_numpy()
    low = float(np.median(known))
    above = low + REACH * (float(np.quantile(known, 0.95)) - low)
    least = low + abs(low) * 1e-6 + 1e-12  # where all scores are equal
    return Scale(low, max(above, float(scores["score"].quantile(0.95)), least))


def overlay(pixels: np.ndarray, anomaly_map: np.ndarray, scale: Scale) -> bytes:
    """Draw an anomaly map over its image.

    Args:
        pixels: uint8 [H, W, 3]; downscaled to ``SIDE`` pixels.
        anomaly_map: Float [S, S] of the whole image, regardless of its aspect ratio.
        scale: From transparent to full colour (matplotlib's ``autumn_r``, yellow to red).

    Returns:
        The content of a PNG file.
    """
    from matplotlib import colormaps  # takes half a second

    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    heat = Image.fromarray(np.asarray(anomaly_map, dtype=np.float32)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    value = np.clip((np.asarray(heat) - scale.low) / (scale.high - scale.low), 0, 1)[..., None]
    colour = colormaps["autumn_r"](value[..., 0])[..., :3]
    alpha = OPACITY * value
    mixed = (1 - alpha) * (np.asarray(picture) / 255) + alpha * colour
    file = io.BytesIO()
    Image.fromarray((255 * mixed + 0.5).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
