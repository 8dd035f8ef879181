"""Drawing primitives of the synthetic scenes: seeded noise, signed distances, strokes, shading, text.

Images are float32 [256, 256, 3] in 0..1, maps float32 [256, 256]. Scene coordinates are in [-1, 1], x to the
right and y down. A signed distance is negative inside a shape.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

SIZE = 256
PIXEL = 2.0 / SIZE

Map = NDArray[np.floating[Any]]
Picture = NDArray[np.floating[Any]]
Region = NDArray[np.bool_]

_axis = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(PIXEL) - np.float32(1)
X, Y = (np.ascontiguousarray(a) for a in np.meshgrid(_axis, _axis))

# Light comes from the upper left in every scene, so that all objects seem to be taken by one camera.
_LIGHT = np.array([-0.42, -0.52, 0.744], np.float32)
_HALF = (_LIGHT + np.array([0, 0, 1], np.float32)) / np.float32(
    np.linalg.norm(_LIGHT + np.array([0, 0, 1], np.float32))
)


def generator(*key: int | str) -> np.random.Generator:
    """A random generator that depends only on the key (not on process, platform or hash seed)."""
    words = [zlib.crc32(k.encode()) if isinstance(k, str) else int(k) & 0xFFFFFFFF for k in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def rgb(red: float, green: float, blue: float) -> Map:
    """Convert a colour from 0..255 to float32 [3] in 0..1."""
    return np.array((red, green, blue), np.float32) / np.float32(255)


def enlarge(small: ArrayLike, shape: tuple[int, int] = (SIZE, SIZE)) -> Map:
    """Upsample a small map to ``shape`` (rows, columns) bicubically."""
    image = Image.fromarray(np.ascontiguousarray(small, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC), np.float32)


@lru_cache(maxsize=24)
def noise(
    seed: int, cells: int = 4, octaves: int = 4, gain: float = 0.55, aspect: tuple[float, float] = (1, 1)
) -> Map:
    """Smooth lattice noise over the whole image, about N(0, 1); cached and therefore read-only.

    ``cells``: lattice cells across at the lowest octave; ``aspect`` stretches them (rows, columns).
    Structural defects render a scene twice with the same seeds, so the cache halves their cost.
    """
    rng = generator(seed, "noise")
    out = np.zeros((SIZE, SIZE), np.float32)
    weight, total = 1.0, 0.0
    for octave in range(octaves):
        n = cells * 2**octave
        rows, cols = (max(2, min(SIZE, int(n * a))) for a in aspect)
        lattice = rng.standard_normal((rows + 1, cols + 1), dtype=np.float32)
        out += np.float32(weight) * enlarge(lattice)
        total += weight * weight
        weight *= gain
    out /= np.float32(math.sqrt(total))
    out.setflags(write=False)
    return out


def wander(seed: int, t: Map, knots: int = 12, periodic: bool = False) -> Map:
    """A smooth random function of ``t`` in [0, 1], about N(0, 1); ``periodic`` joins its ends."""
    values = generator(seed, "wander").standard_normal(knots + 1).astype(np.float32)
    if periodic:
        values[knots] = values[0]
    position = np.clip(t, 0, 1) * np.float32(knots)
    i = np.minimum(position.astype(np.int32), knots - 1)
    f = position - i.astype(np.float32)
    f = f * f * (3 - 2 * f)
    return values[i] * (1 - f) + values[i + 1] * f


def rotate(u: Map, v: Map, angle: float) -> tuple[Map, Map]:
    """Coordinates in a frame that is rotated by ``angle`` (radians, clockwise on screen)."""
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return u * c + v * s, v * c - u * s


# ---------------------------------------------------------------- signed distances


def disc(u: Map, v: Map, radius: float, x: float = 0.0, y: float = 0.0) -> Map:
    return np.hypot(u - np.float32(x), v - np.float32(y)) - np.float32(radius)


def box(u: Map, v: Map, half_x: float, half_y: float, x: float = 0.0, y: float = 0.0, r: float = 0.0) -> Map:
    """Rectangle with half sizes and corner radius ``r``."""
    dx = np.abs(u - np.float32(x)) - np.float32(half_x - r)
    dy = np.abs(v - np.float32(y)) - np.float32(half_y - r)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - np.float32(r)


def segment(u: Map, v: Map, x0: float, y0: float, x1: float, y1: float, radius: float) -> Map:
    """A line from (x0, y0) to (x1, y1) with round ends, ``radius`` half its width."""
    dx, dy = x1 - x0, y1 - y0
    px, py = u - np.float32(x0), v - np.float32(y0)
    t = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(dx * dx + dy * dy), 0, 1)
    return np.hypot(px - t * np.float32(dx), py - t * np.float32(dy)) - np.float32(radius)


def arc(u: Map, v: Map, bend: float, half_angle: float, radius: float) -> Map:
    """A round-ended tube along a circular arc: centre at the origin, opening downwards.

    ``bend`` is the radius of the arc, ``half_angle`` (radians) its extent to either side of "up" (-y).
    """
    c, s = np.float32(math.cos(half_angle)), np.float32(math.sin(half_angle))
    a = np.abs(u)
    ring = np.abs(np.hypot(a, v) - np.float32(bend))
    end = np.hypot(a - np.float32(bend) * s, v + np.float32(bend) * c)
    inside = a * c + v * s < 0  # angle from "up" below half_angle
    return np.where(inside, ring, end).astype(np.float32) - np.float32(radius)


def smooth_min(a: Map, b: Map, k: float) -> Map:
    """Union of two shapes, with a seam rounded over the distance ``k``."""
    h = np.clip(0.5 + 0.5 * (b - a) / np.float32(k), 0, 1)
    return b + (a - b) * h - np.float32(k) * h * (1 - h)


# ---------------------------------------------------------------- coverage, paint, light


def cover(distance: Map, soft: float = 1.0) -> Map:
    """Signed distance -> antialiased coverage in 0..1; ``soft`` widens the edge (in pixels)."""
    return np.clip(np.float32(0.5) - distance * np.float32(1 / (PIXEL * soft)), 0, 1)


def ridge(distance: Map, width: float) -> Map:
    """1 on the zero line of ``distance``, decreasing linearly to 0 at ``width`` on both sides."""
    return np.clip(1 - np.abs(distance) * np.float32(1 / width), 0, 1)


def paint(image: Picture, coverage: Map, colour: ArrayLike) -> None:
    """Blend a colour [3] or picture [H, W, 3] into ``image`` in place."""
    image += (np.asarray(colour, np.float32) - image) * coverage[..., None]


def shade(image: Picture, amount: Map) -> None:
    """Brighten (amount > 0) or darken (< 0) ``image`` in place by the factor 1 + amount."""
    image *= (1 + amount)[..., None]


def dome(distance: Map, width: float) -> Map:
    """Height of a rounded edge: 0 at the outline, a quarter circle up to ``width`` inside."""
    d = np.clip(distance * np.float32(-1 / width), 0, 1)
    return np.float32(width) * np.sqrt(d * (2 - d))


def relief(height: Map, shininess: float = 24.0) -> tuple[Map, Map]:
    """Shade a height map (in scene units): diffuse factor (1 for flat areas) and specular term in 0..1.

    Slopes are computed on the pixel grid, so the light direction is fixed in the image and does not rotate
    with the object.
    """
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    gx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * np.float32(0.5 / PIXEL)
    gy[1:-1] = (height[2:] - height[:-2]) * np.float32(0.5 / PIXEL)
    inverse = 1 / np.sqrt(gx * gx + gy * gy + 1)
    diffuse = (_LIGHT[2] - gx * _LIGHT[0] - gy * _LIGHT[1]) * inverse / _LIGHT[2]
    glint = np.clip((_HALF[2] - gx * _HALF[0] - gy * _HALF[1]) * inverse, 0, 1)
    return np.maximum(diffuse, np.float32(0.15)), glint ** np.float32(shininess)


def stroke(points: Sequence[tuple[float, float]], width: float) -> Map:
    """Coverage of a polyline; points and width in pixels."""
    fine = 2
    image = Image.new("L", (SIZE * fine, SIZE * fine), 0)
    ImageDraw.Draw(image).line(
        [(x * fine, y * fine) for x, y in points], fill=255, width=max(1, round(width * fine)), joint="curve"
    )
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / np.float32(255)


# ---------------------------------------------------------------- text

# 5x7 bitmap glyphs, one byte a row: no font file, so that text does not depend on FreeType.
_GLYPHS = {
    "0": "0E11131519110E", "1": "040C040404040E", "2": "0E11010204081F", "3": "1F02040201110E",
    "4": "02060A121F0202", "5": "1F101E0101110E", "6": "0608101E11110E", "7": "1F010204080808",
    "8": "0E11110E11110E", "9": "0E11110F01020C", "A": "0E11111F111111", "B": "1E11111E11111E",
    "C": "0E11101010110E", "D": "1C12111111121C", "E": "1F10101E10101F", "F": "1F10101E101010",
    "G": "0E11101711110F", "H": "1111111F111111", "I": "0E04040404040E", "J": "0702020202120C",
    "K": "11121418141211", "L": "1010101010101F", "M": "111B1515111111", "N": "11111915131111",
    "O": "0E11111111110E", "P": "1E11111E101010", "Q": "0E11111115120D", "R": "1E11111E141211",
    "S": "0F10100E01011E", "T": "1F040404040404", "U": "1111111111110E", "V": "11111111110A04",
    "W": "1111111515150A", "X": "11110A040A1111", "Y": "1111110A040404", "Z": "1F01020408101F",
    "-": "0000001F000000", ".": "00000000000C0C", "+": "0004041F040400", " ": "00000000000000",
}  # fmt: skip


@lru_cache(maxsize=64)
def _text_bitmap(line: str) -> Map:
    cells = np.zeros((9, 6 * len(line) + 1), np.float32)
    for i, character in enumerate(line):
        for y, row in enumerate(bytes.fromhex(_GLYPHS[character])):
            for x in range(5):
                cells[1 + y, 1 + 6 * i + x] = (row >> (4 - x)) & 1
    return np.clip(enlarge(np.kron(cells, np.ones((4, 4))), (cells.shape[0] * 8, cells.shape[1] * 8)), 0, 1)


def text(u: Map, v: Map, line: str, x: float, y: float, height: float) -> Map:
    """Coverage of a line of text centred at (x, y); ``height`` in scene units is 9 glyph rows."""
    bitmap = _text_bitmap(line)
    rows, cols = bitmap.shape
    scale = np.float32(rows / height)
    ix = ((u - np.float32(x)) * scale + np.float32(cols / 2)).astype(np.int32)
    iy = ((v - np.float32(y)) * scale + np.float32(rows / 2)).astype(np.int32)
    inside = (ix >= 0) & (iy >= 0) & (ix < cols) & (iy < rows)
    return np.where(inside, bitmap[iy.clip(0, rows - 1), ix.clip(0, cols - 1)], np.float32(0))
