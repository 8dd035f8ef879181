"""Image scores and pixel counts on the device that holds the anomaly maps, bit-identical to numpy.

Image scores add float64 numbers in the order of ``metrics.image``; pixel metrics need integer
counts of normal pixels above each threshold, from one sort on the device. On the CPU numpy is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from iufbench.metrics.curve import Curve
from iufbench.metrics.image import POOL, image_score
from iufbench.metrics.pixel import defective_curve

SORTING = 32  # bytes per pixel that sorting takes, with room for what else is allocated
CHUNK = 64  # images pooled at once


def stays(maps: Any) -> bool:
    """Whether maps are evaluated on their device."""
    return isinstance(maps, Tensor) and maps.is_cuda


def fits(pixels: int, device: torch.device) -> bool:
    """Whether this many pixels can be sorted on a device."""
    return device.type != "cuda" or SORTING * pixels <= torch.cuda.mem_get_info(device)[0]


def image_scores(maps: Tensor, rule: str) -> np.ndarray:
    """``metrics.image.image_score`` of maps [N, H, W] on any device: float64 [N]."""
    if rule == "pooled_max" and min(maps.shape[1:]) >= POOL:
        return np.concatenate([_best_windows(part).cpu().numpy() for part in maps.split(CHUNK)])
    if rule == "top1pct":  # the mean is numpy's: the order of a sum matters
        pixels = maps.flatten(1).double()
        highest = pixels.sort(dim=1).values[:, -max(1, pixels.shape[1] // 100) :]
        return np.ascontiguousarray(highest.cpu().numpy()).mean(axis=1)
    return image_score(maps.cpu().numpy(), rule)


def _best_windows(maps: Tensor) -> Tensor:
    sums = maps.double()
    for reach in (1, 2, 4, 8):
        sums = sums[:, :-reach] + sums[:, reach:]
    for reach in (1, 2, 4, 8):
        sums = sums[:, :, :-reach] + sums[:, :, reach:]
    return sums.amax(dim=(1, 2)) / POOL**2


def pixel_curve(masks: np.ndarray, maps: np.ndarray, device_maps: Tensor) -> Curve:
    """``metrics.pixel.pixel_curve`` with normal pixels sorted and counted on a device.

    Args:
        masks: bool [N, H, W], true is defective.
        maps: float [N, H, W].
        device_maps: The same maps on the device.
    """
    curve = defective_curve(masks, maps)
    defective = torch.from_numpy(masks).to(device_maps.device)
    normals = device_maps[~defective].sort().values
    thresholds = torch.from_numpy(curve.thresholds.astype(maps.dtype)).to(normals)
    below, up_to = (torch.searchsorted(normals, thresholds, right=right) for right in (False, True))
    count = len(normals)
    curve.add_counts((count - up_to).cpu().numpy(), (count - below).cpu().numpy(), count)
    return curve
