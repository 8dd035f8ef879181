"""Surface defects: painters that add a scratch, stain, crack, ... to a rendered image.

A painter takes (rng, image [256, 256, 3], allowed region) and returns the appearance under full coverage and
the coverage [256, 256] in 0..1. ``apply`` blends the two, so nothing changes outside the coverage; the mask
is coverage > 0.25.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage

from .primitives import SIZE, Map, Picture, Region, X, Y, noise, rgb, rotate, stroke

Painter = Callable[[np.random.Generator, Picture, Region], tuple[Picture, Map]]
Colour = tuple[int, int, int]
MASK_LEVEL = 0.25
_WHITE = np.ones(3, np.float32)


def apply(
    painter: Painter, rng: np.random.Generator, image: Picture, region: Region
) -> tuple[Picture, Region]:
    """Apply one defect: the changed image and its mask."""
    painted, coverage = painter(rng, image, region)
    coverage = coverage * ndimage.uniform_filter(region.astype(np.float32), 3)
    return image + (painted - image) * coverage[..., None], coverage > MASK_LEVEL


# ---------------------------------------------------------------- position and shape


def spot(rng: np.random.Generator, region: Region) -> tuple[float, float]:
    """A pixel (x, y) of the region, away from the image border if possible."""
    ys, xs = np.nonzero(region[16:-16:2, 16:-16:2])
    if not len(ys):
        return SIZE / 2, SIZE / 2
    i = int(rng.integers(len(ys)))
    return float(xs[i] * 2 + 16), float(ys[i] * 2 + 16)


def draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 30))


def frame(rng: np.random.Generator, region: Region, angle: float) -> tuple[Map, Map]:
    """Pixel coordinates around a random spot, rotated by ``angle``."""
    x, y = spot(rng, region)
    half = SIZE / 2
    return rotate(
        (X + np.float32(1)) * half - np.float32(x), (Y + np.float32(1)) * half - np.float32(y), angle
    )


def blob(rng: np.random.Generator, region: Region, low: float, high: float, rough: float) -> Map:
    """An irregular blob of radius low..high pixels: about -1 in the centre, 0 on the outline."""
    aspect = rng.uniform(0.75, 1.35)
    u, v = frame(rng, region, rng.uniform(0, math.pi))
    d = np.hypot(u * np.float32(aspect), v / np.float32(aspect)) / np.float32(rng.uniform(low, high))
    return d - 1 + np.float32(0.5 * rough) * noise(draw_seed(rng), 8, 3)


def walk(
    rng: np.random.Generator, x: float, y: float, angle: float, length: float, wobble: float
) -> list[tuple[float, float]]:
    step = 6.0
    points = [(x, y)]
    for _ in range(max(2, round(length / step))):
        angle += rng.normal(0, wobble)
        x, y = x + step * math.cos(angle), y + step * math.sin(angle)
        points.append((x, y))
    return points


def _line(
    rng: np.random.Generator,
    region: Region,
    length: tuple[float, float],
    width: tuple[float, float],
    wobble: float,
) -> Map:
    x, y = spot(rng, region)
    angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(*length)
    x, y = x - reach / 2 * math.cos(angle), y - reach / 2 * math.sin(angle)
    return stroke(walk(rng, x, y, angle, reach, wobble), rng.uniform(*width))


def draw_colour(rng: np.random.Generator, colours: tuple[Colour, ...], image: Picture, coverage: Map) -> Map:
    """The colour with the higher contrast to the covered area, out of two random ones."""
    under = (image * coverage[..., None]).sum((0, 1)) / max(float(coverage.sum()), 1.0)
    draws = [rgb(*colours[int(rng.integers(len(colours)))]) for _ in range(2)]
    return max(draws, key=lambda c: float(np.abs(c - under).max()))


# ---------------------------------------------------------------- lines


def _scratch(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    coverage = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(int(rng.integers(2, 4))):
        coverage = np.maximum(coverage, _line(rng, region, (90, 150), (3.8, 5.4), 0.06))
    under = float((image.mean(-1) * coverage).sum() / max(float(coverage.sum()), 1.0))
    strength = np.float32(rng.uniform(0.75, 1.0))
    to = image * np.float32(1.5) + np.float32(0.18) if under < 0.48 else image * np.float32(0.45)
    return image + (np.clip(to, 0, 1) - image) * strength, coverage


def _cut(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    gash = _line(rng, region, (60, 110), (5.0, 8.0), 0.03)
    lips = np.clip(np.clip(ndimage.gaussian_filter(gash, 2) * 1.6, 0, 1) - gash, 0, 1)
    inner = np.float32(rng.uniform(0.70, 0.85)) * gash
    return image * (1 + np.float32(0.4) * lips - inner)[..., None], np.maximum(gash, lips)


def _crack(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    x, y = spot(rng, region)
    angle = rng.uniform(0, 2 * math.pi)
    main = walk(rng, x, y, angle, rng.uniform(50, 80), 0.40)
    back = walk(rng, x, y, angle + math.pi, rng.uniform(30, 55), 0.40)
    coverage = np.maximum(stroke(main, rng.uniform(4.2, 5.6)), stroke(back, rng.uniform(3.4, 4.6)))
    for _ in range(int(rng.integers(1, 4))):
        bx, by = main[int(rng.integers(len(main)))]
        turn = rng.choice([-1, 1]) * rng.uniform(0.6, 1.2)
        branch = walk(rng, bx, by, angle + turn, rng.uniform(20, 40), 0.4)
        coverage = np.maximum(coverage, stroke(branch, 3.2))
    return image * np.float32(1 - rng.uniform(0.6, 0.78)), coverage


def _thread(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A fibre lying on the surface: long, curled, in a foreign colour."""
    x, y = spot(rng, region)
    points = walk(rng, x, y, rng.uniform(0, 2 * math.pi), rng.uniform(110, 170), 0.32)
    coverage = stroke(points, rng.uniform(3.0, 4.2))
    colour = draw_colour(rng, ((40, 60, 130), (150, 40, 40), (40, 40, 44), (235, 235, 225)), image, coverage)
    return np.broadcast_to(colour, image.shape), coverage


# ---------------------------------------------------------------- blobs


def _hole(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    d = blob(rng, region, 11, 17, 0.25)
    inside = np.clip(0.5 - d * 4, 0, 1)
    rim = np.clip(1 - np.abs(d - 0.2) / 0.22, 0, 1)
    factor = (1 + np.float32(0.3) * rim) * (1 - np.float32(rng.uniform(0.7, 0.85)) * inside)
    return image * factor[..., None], np.maximum(inside, rim)


def _burn(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    d = blob(rng, region, 20, 32, 0.35)
    scorch, char = np.clip(0.6 - d * 1.4, 0, 1), np.clip(0.1 - d * 1.6, 0, 1)
    brown = image + (image * rgb(130, 84, 50) - image) * np.float32(0.85)
    return brown * (1 - np.float32(rng.uniform(0.6, 0.8)) * char)[..., None], scorch


def _glue(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A clear glossy drop: brighter, with a light and a dark edge."""
    coverage = np.clip(0.5 - blob(rng, region, 16, 27, 0.3) * 4, 0, 1)
    gy, gx = np.gradient(ndimage.gaussian_filter(coverage, 3))
    gloss = np.clip(-(gx + gy) * 9, -0.5, 1) * np.float32(rng.uniform(0.45, 0.6))
    drop = np.minimum(image * np.float32(1.12) + np.float32(0.14), 1) + gloss[..., None]
    return np.clip(drop, 0, 1), coverage


def _fold(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A crease: light on one flank, dark on the other."""
    u, v = frame(rng, region, rng.uniform(0, math.pi))
    v = v + 3 * noise(draw_seed(rng), 4, 2)
    length, width = rng.uniform(40, 70), rng.uniform(5, 8)
    profile = v / np.float32(width) * np.exp(0.5 - 0.5 * (v / np.float32(width)) ** 2)
    ends = np.clip((length - np.abs(u)) / 8, 0, 1)
    sides = np.clip((1.9 * width - np.abs(v)) / 2, 0, 1)
    return image * (1 + np.float32(rng.uniform(0.45, 0.6)) * profile)[..., None], ends * sides


def _tear(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A piece torn off at the edge of the region: fibre with a pale rim."""
    border = region & ~ndimage.binary_erosion(region, iterations=14)
    d = blob(rng, border, 16, 28, 0.5)
    fibre = rgb(176, 140, 98) * (1 + np.float32(0.1) * noise(draw_seed(rng), 30, 2)[..., None])
    rim = np.clip(1 - np.abs(d) / 0.2, 0, 1)[..., None]
    return fibre + (rgb(250, 248, 240) - fibre) * rim * np.float32(0.7), np.clip(0.5 - d * 4, 0, 1)


def _blots(
    rng: np.random.Generator,
    image: Picture,
    region: Region,
    *,
    radius: tuple[float, float],
    colours: tuple[Colour, ...],
    alpha: tuple[float, float],
    rough: float = 0.35,
    edge: float = 3.0,
    count: tuple[int, int] = (1, 1),
    grain: float = 0.0,
) -> tuple[Picture, Map]:
    """Coloured blobs: stains, oil, rust, dirt and similar defects."""
    coverage = np.zeros((SIZE, SIZE), np.float32)
    for _ in range(int(rng.integers(count[0], count[1] + 1))):
        coverage = np.maximum(coverage, np.clip(0.5 - blob(rng, region, *radius, rough) * edge, 0, 1))
    opacity: Map | np.float32 = np.float32(rng.uniform(*alpha))
    if grain:
        grains = 1 + np.float32(grain) * noise(draw_seed(rng), 40, 2, 0.8)
        opacity = np.clip(opacity * grains, 0, 1)[..., None]
    return image + (draw_colour(rng, colours, image, coverage) - image) * opacity, coverage


PAINTERS: dict[str, Painter] = {
    "scratch": _scratch,
    "cut": _cut,
    "crack": _crack,
    "thread": _thread,
    "hole": _hole,
    "burn": _burn,
    "glue": _glue,
    "fold": _fold,
    "tear": _tear,
    "stain": partial(
        _blots,
        radius=(21, 34),
        colours=((64, 46, 30), (40, 44, 60), (110, 76, 36)),
        alpha=(0.62, 0.76),
        rough=0.45,
    ),
    "oil": partial(_blots, radius=(20, 32), colours=((34, 28, 22),), alpha=(0.6, 0.75)),
    "rust": partial(
        _blots,
        radius=(18, 30),
        colours=((150, 78, 34), (128, 60, 30)),
        alpha=(0.65, 0.8),
        rough=0.6,
        edge=2.5,
        count=(1, 2),
        grain=0.35,
    ),
    "mould": partial(
        _blots,
        radius=(12, 20),
        colours=((96, 120, 84), (72, 96, 88)),
        alpha=(0.7, 0.85),
        rough=0.8,
        count=(2, 4),
        grain=0.3,
    ),
    "dirt": partial(
        _blots,
        radius=(8, 13),
        colours=((40, 34, 30), (90, 50, 30), (30, 60, 40)),
        alpha=(0.7, 0.88),
        rough=0.3,
        count=(3, 6),
    ),
    "debris": partial(
        _blots,
        radius=(12, 18),
        colours=((214, 210, 200), (190, 90, 50), (60, 110, 190), (44, 44, 48)),
        alpha=(0.85, 0.95),
        rough=0.6,
        edge=4.0,
        count=(1, 3),
    ),
    "colour_spot": partial(
        _blots,
        radius=(17, 26),
        colours=((186, 60, 50), (60, 90, 160), (66, 130, 70), (200, 160, 40)),
        alpha=(0.7, 0.85),
        rough=0.3,
        edge=2.5,
    ),
}
