"""The camera model, applied to every rendered image, normal or defective."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .primitives import SIZE, Picture, X, Y


def shoot(rng: np.random.Generator, picture: Picture) -> NDArray[np.uint8]:
    """Apply uneven illumination, exposure, white balance, lens blur and sensor noise.

    Masks are computed before this step, so they never contain noise.

    Returns:
        uint8 [256, 256, 3].
    """
    direction = rng.uniform(0, 2 * math.pi)
    slope = np.float32(rng.uniform(0, 0.06))
    tilt = X * np.float32(math.cos(direction)) + Y * np.float32(math.sin(direction))
    light = np.float32(1 + rng.normal(0, 0.02)) * (1 + slope * tilt)
    balance = (1 + rng.normal(0, 0.008, 3)).astype(np.float32)
    grain = rng.standard_normal((SIZE, SIZE), dtype=np.float32) * np.float32(rng.uniform(0.006, 0.010))
    photo = picture * light[..., None]
    photo *= balance
    photo += grain[..., None]
    np.clip(photo, 0, 1, out=photo)
    b = rng.uniform(0.10, 0.22)  # a small symmetric kernel of random strength
    kernel = np.array([b, 1 - 2 * b, b], np.float32)
    for axis in (0, 1):
        photo = ndimage.correlate1d(photo, kernel, axis=axis, mode="nearest")
    return (photo * 255 + np.float32(0.5)).astype(np.uint8)
