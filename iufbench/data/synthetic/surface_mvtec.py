"""Surface defects of the MVTec scenes, named as in MVTec AD; ``surface`` states what a painter does."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from .primitives import SIZE, Map, Picture, Region, noise, rgb, stroke
from .surface import PAINTERS, Colour, Painter, blob, draw_colour, draw_seed, frame, spot, walk


def _blank() -> Map:
    return np.zeros((SIZE, SIZE), np.float32)


def _filled(distance: Map, edge: float = 4.0) -> Map:
    return np.clip(0.5 - distance * np.float32(edge), 0, 1)


def shifted(coverage: Map, pixels: int) -> Map:
    """The coverage moved right and down, away from the light: where its shadow falls."""
    out = np.zeros_like(coverage)
    out[pixels:, pixels:] = coverage[:-pixels, :-pixels]
    return out


def dye(colours: tuple[Colour, ...], low: float = 16, high: float = 26, depth: float = 0.85) -> Painter:
    """A blot that colours the material but leaves its texture; radius low..high pixels."""

    def painter(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
        coverage = _filled(blob(rng, region, low, high, 0.45), 4)
        colour = draw_colour(rng, colours, image, coverage)
        grey = image.mean(-1)
        level = float((grey * coverage).sum() / max(float(coverage.sum()), 1.0)) + 1e-3
        texture = np.clip(grey / np.float32(level), 0, 2)[..., None]
        strength = np.float32(depth * rng.uniform(0.85, 1.0))
        return image + (colour * texture - image) * strength, coverage

    return painter


def specks(
    colours: tuple[Colour, ...], low: float, high: float, count: tuple[int, int] = (2, 4), rough: float = 0.5
) -> Painter:
    """Foreign particles: opaque blots of radius low..high pixels, each with a colour of its own."""

    def painter(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
        painted, coverage = image.copy(), _blank()
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            one = _filled(blob(rng, region, low, high, rough))
            colour = draw_colour(rng, colours, image, one)
            grain = 1 + np.float32(0.12) * noise(draw_seed(rng), 40, 2, 0.8)
            painted += (colour * grain[..., None] - painted) * (one > 0)[..., None]
            coverage = np.maximum(coverage, one)
        return painted, coverage

    return painter


def poke(low: float = 8, high: float = 11) -> Painter:
    """A pricked hole: dark funnel, pushed-up rim that catches the light on its far side."""

    def painter(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
        d = blob(rng, region, low, high, 0.2)
        gy, gx = np.gradient(d)
        slope = (gx + gy) / np.float32(np.hypot(gx, gy).max() + 1e-6)
        rim = np.clip(1 - np.abs(d - 0.15) / 0.3, 0, 1)
        funnel = np.float32(rng.uniform(0.8, 0.92)) * _filled(d + 0.15, 2.2)
        pushed = image * (1 + 0.45 * rim * slope - funnel)[..., None] + (0.2 * rim * (0.6 + slope))[..., None]
        return np.clip(pushed, 0, 1), _filled(d - 0.3, 5)

    return painter


def thread(colours: tuple[Colour, ...], width: tuple[float, float] = (4.0, 5.5)) -> Painter:
    """A loose fibre, long and curled, with its shadow."""

    def painter(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
        points = walk(rng, *spot(rng, region), rng.uniform(0, 2 * math.pi), rng.uniform(110, 170), 0.32)
        fibre = stroke(points, rng.uniform(*width))
        colour = draw_colour(rng, colours, image, fibre)
        twist = 1 + np.float32(0.12) * noise(draw_seed(rng), 50, 1)[..., None]
        painted = np.where((fibre > 0.2)[..., None], colour * twist, image * np.float32(0.5))
        return painted, np.maximum(fibre, 0.5 * shifted(fibre, 3))

    return painter


def metal_contamination(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A curled shaving of bright metal with its shadow."""
    x, y = spot(rng, region)
    bend = rng.choice([-1, 1]) * rng.uniform(0.10, 0.22)
    angle, points = rng.uniform(0, 2 * math.pi), [(x, y)]
    for _ in range(int(rng.integers(14, 20))):
        angle += bend + rng.normal(0, 0.12)
        x, y = x + 5 * math.cos(angle), y + 5 * math.sin(angle)
        points.append((x, y))
    wire = stroke(points, rng.uniform(4.5, 6.0))
    gy, gx = np.gradient(ndimage.gaussian_filter(wire, 1.2))
    shine = np.float32(0.72) + np.clip((gx + gy) * np.float32(1.3), -0.5, 0.3)
    metal = shine[..., None] * rgb(246, 248, 255)
    return np.where((wire > 0.2)[..., None], metal, image * np.float32(0.4)), np.maximum(
        wire, 0.6 * shifted(wire, 3)
    )


def glue_strip(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A dried strip of adhesive: milky, with light and dark borders."""
    u, v = frame(rng, region, rng.uniform(0, math.pi))
    v = v + np.float32(1.6) * noise(draw_seed(rng), 10, 2)
    length, width = rng.uniform(45, 65), rng.uniform(8, 12)
    inside = np.maximum(np.abs(u) - np.float32(length), np.abs(v) - np.float32(width))
    coverage = np.clip(0.5 - inside, 0, 1)
    border = np.clip(1 - np.abs(inside + 2.5) / 2.5, 0, 1) * np.sign(v)
    milk = image + (rgb(226, 204, 136) - image) * np.float32(rng.uniform(0.65, 0.8))
    return np.clip(milk * (1 - np.float32(0.3) * border)[..., None], 0, 1), coverage


def gray_stroke(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A hasty zigzag of a grey marker."""
    x, y = spot(rng, region)
    along, reach = rng.uniform(0, 2 * math.pi), rng.uniform(22, 34)
    points = []
    for i in range(int(rng.integers(4, 7))):
        side = (-1) ** i * reach * rng.uniform(0.8, 1.2)
        step = 9 * i
        points.append(
            (
                x + step * math.cos(along) - side * math.sin(along),
                y + step * math.sin(along) + side * math.cos(along),
            )
        )
    coverage = stroke(points, rng.uniform(5.5, 7.5))
    ink = image + (rgb(88, 90, 94) - image) * np.float32(rng.uniform(0.75, 0.9))
    return ink, coverage


def rough(level: float) -> Painter:
    """A coarse patch, dull and pitted; ``level`` is its brightness relative to the sound surface."""

    def painter(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
        coverage = _filled(blob(rng, region, 18, 28, 0.6), 2.5)
        pits = noise(draw_seed(rng), 64, 2, 0.9)
        matt = ndimage.uniform_filter(image, (5, 5, 1)) * np.float32(level)
        return np.clip(matt * (1 + np.float32(rng.uniform(0.24, 0.32)) * pits)[..., None], 0, 1), coverage

    return painter


def frayed_cut(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A cut into cloth: pale broken fibres along a black gash."""
    x, y = spot(rng, region)
    angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(60, 90)
    x, y = x - reach / 2 * math.cos(angle), y - reach / 2 * math.sin(angle)
    gash = stroke(walk(rng, x, y, angle, reach, 0.05), rng.uniform(4.0, 6.0))
    lips = np.clip(np.clip(ndimage.gaussian_filter(gash, 2.5) * 2, 0, 1) - gash, 0, 1)
    fibres = np.clip(0.45 + 0.25 * noise(draw_seed(rng), 64, 1), 0.1, 0.8)[..., None]
    pale = (lips / (lips + gash + np.float32(1e-3)))[..., None]
    torn = image * np.float32(0.15) * (1 - pale) + (image * np.float32(0.7) + fibres) * pale
    return np.clip(torn, 0, 1), np.maximum(gash, lips)


def liquid(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A wet patch: darker and more saturated, with a thin bright edge towards the light."""
    coverage = _filled(np.minimum(blob(rng, region, 18, 28, 0.3), blob(rng, region, 7, 10, 0.3)))
    gy, gx = np.gradient(ndimage.gaussian_filter(coverage, 1.5))
    glint = np.clip((gx + gy) * np.float32(3), 0, 1) * np.float32(0.5)
    wet = image ** np.float32(rng.uniform(1.5, 1.8)) * np.float32(0.72)
    return np.clip(wet + glint[..., None], 0, 1), coverage


def scuffs(width: tuple[float, float], length: tuple[float, float], count: tuple[int, int]) -> Painter:
    """Scratches of stated width and length (pixels), for objects smaller than the whole picture."""

    def painter(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
        coverage, angle = _blank(), rng.uniform(0, 2 * math.pi)
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            (x, y), turn, reach = spot(rng, region), angle + rng.normal(0, 0.35), rng.uniform(*length)
            x, y = x - reach / 2 * math.cos(turn), y - reach / 2 * math.sin(turn)
            coverage = np.maximum(coverage, stroke(walk(rng, x, y, turn, reach, 0.08), rng.uniform(*width)))
        inside = coverage * region
        under = float((image.mean(-1) * inside).sum() / max(float(inside.sum()), 1.0))
        to = image * np.float32(0.35) if under > 0.55 else image * np.float32(0.5) + np.float32(0.48)
        return to, coverage

    return painter


def pale_crack(rng: np.random.Generator, image: Picture, region: Region) -> tuple[Picture, Map]:
    """A crack in dark, clear or glossy material: it scatters the light."""
    _, coverage = PAINTERS["crack"](rng, image, region)
    return image + (rgb(240, 222, 196) - image) * np.float32(rng.uniform(0.6, 0.8)), coverage
