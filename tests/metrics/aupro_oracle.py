"""AUPRO from its definition, twice: threshold by threshold, and by one sort (for large maps)."""

from __future__ import annotations

from bisect import bisect

import numpy as np
from scipy import ndimage


def regions_of(mask: np.ndarray) -> list[np.ndarray]:
    """Flood fill over the eight neighbours; one bool [H, W] per region."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        border, region = [left.pop()], np.zeros(mask.shape, bool)
        while border:
            y, x = border.pop()
            region[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            border.extend(near)
        regions.append(region)
    return regions


def aupro_by_thresholds(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    """Every distinct value of every pixel is a threshold; each region is evaluated separately."""
    regions = [(image, region) for mask, image in zip(masks, maps) for region in regions_of(mask)]
    rates, shares = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        rates.append(float(np.mean(maps[~masks] >= threshold)))
        shares.append(float(np.mean([np.mean(image[region] >= threshold) for image, region in regions])))
    return area_up_to(np.array(rates), np.array(shares), limit) / limit


def aupro_by_sorting(masks: np.ndarray, maps: np.ndarray, limit: float) -> float:
    """All pixels in one descending order; the curve is kept where the next score differs."""
    false_hits = (~masks).astype(np.float64)
    region_hits = np.zeros(maps.shape, np.float64)
    count = 0
    for i, mask in enumerate(masks):
        labelled, found = ndimage.label(mask, np.ones((3, 3), int))
        sizes = np.bincount(labelled.ravel())
        region_hits[i] = np.where(labelled > 0, 1.0 / sizes[labelled], 0.0)
        count += found
    order = np.argsort(-maps.ravel(), kind="stable")
    scores = maps.ravel()[order]
    last_of_tie = np.append(np.diff(scores) != 0, True)
    rates = (np.cumsum(false_hits.ravel()[order]) / false_hits.sum())[last_of_tie]
    shares = (np.cumsum(region_hits.ravel()[order]) / count)[last_of_tie]
    return area_up_to(np.append(0.0, rates), np.append(0.0, np.minimum(shares, 1.0)), limit) / limit


def area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoid up to x = ``limit``, the curve interpolated linearly there."""
    inside = x <= limit
    area = float(np.trapezoid(y[inside], x[inside]))
    after = bisect(x, limit)
    if after < len(x) and x[after - 1] < limit:
        slope = (y[after] - y[after - 1]) / (x[after] - x[after - 1])
        at_limit = y[after - 1] + slope * (limit - x[after - 1])
        area += (limit - x[after - 1]) * (y[after - 1] + at_limit) / 2
    return area
