"""Anomaly maps as pictures: the image with a colour where its map is high."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from iufbench.reporting.store import Run

SIDE = 512  # pixels of the longer side of a picture, at most
OPACITY = 0.65  # of the colour at and above the high end of the scale
REACH = 3.0


class Scale(NamedTuple):
    """The values of an anomaly map that are shown without colour (``low``) and in full colour (``high``)."""

    low: float
    high: float


def scale_of(run: Run, objects: Sequence[str] | None = None) -> Scale:
    """The colour scale of a run, from the scores of its test images after the last experience.

    ``low`` is the median score of good images. ``high`` lies three times as far above it as their 95 %
    quantile, or at the 95 % quantile of all test images, whichever is higher. All pictures share the scale: a
    good image stays without colour even where its own map is highest.

    Args:
        run: A complete run.
        objects: Only their images; None: those of all objects.

    Returns:
        The scale, in the unit of the maps.

    Raises:
        RunError: The scores are missing or damaged.
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
    """An image with its anomaly map in colour, as PNG.

    Args:
        pixels: uint8 [H, W, 3]; scaled down to ``SIDE`` pixels.
        anomaly_map: Float [S, S] of the whole image, whatever its aspect ratio.
        scale: From no colour to full colour (matplotlib's ``autumn_r``, yellow to red).

    Returns:
        The file's content.
    """
    from matplotlib import colormaps  # half a second, needed for pictures only

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
