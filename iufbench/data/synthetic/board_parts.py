"""Electronic components seen from above, drawn around the origin of the given canvas.

``body=False`` draws only the solder pads of a component that was never placed.
"""

from __future__ import annotations

import numpy as np

from .primitives import Map, box, cover, disc, rgb, ridge, segment, text
from .scene import Canvas

TIN, GOLD, BLACK, SILK = rgb(204, 206, 212), rgb(214, 172, 84), rgb(38, 38, 42), rgb(226, 228, 224)
Bent = tuple[int, int, float] | None  # first pin, number of pins, offset of their tips (in pitches)


def _row(along: Map, count: int, pitch: float) -> tuple[Map, Map]:
    """A row of equal items drawn at once: the coordinate around the nearest one, and its index."""
    which = np.clip(np.floor(along / np.float32(pitch) + np.float32(count / 2)), 0, count - 1)
    return along - (which + np.float32(0.5 - count / 2)) * np.float32(pitch), which


def _pads(c: Canvas, places: list[tuple[float, float]], half_x: float, half_y: float) -> None:
    shape = np.min([box(c.u, c.v, half_x, half_y, x, y, r=0.012) for x, y in places], axis=0)
    c.body(shape, TIN, 0.02, gloss=0.3)


def _lean(which: Map, bent: Bent, pitch: float) -> Map | float:
    if bent is None:
        return 0.0
    first, count, off = bent
    return np.where((which >= first) & (which < first + count), np.float32(off * pitch), np.float32(0))


def hole_row(c: Canvas, count: int, pitch: float, radius: float = 0.045) -> None:
    """Plated holes in a row along x."""
    u, _ = _row(c.u, count, pitch)
    c.body(disc(u, c.v, radius), GOLD, 0.03, gloss=0.3)
    c.paint(cover(disc(u, c.v, radius * 0.5)), rgb(16, 16, 18))


def chip(c: Canvas, *, half: tuple[float, float], colour: Map = BLACK, body: bool = True) -> None:
    """A two-terminal component (resistor, capacitor, diode) along x."""
    hx, hy = half
    _pads(c, [(-hx, 0), (hx, 0)], 0.05, hy * 0.95)
    if not body:
        return
    shape = box(c.u, c.v, hx, hy, r=0.015)
    c.shadow(shape, 0.02, 0.35, 0.05)
    ends = cover(hx - 0.06 - np.abs(c.u))[..., None]
    c.body(shape, colour + (TIN - colour) * ends, 0.03, gloss=0.15)


def package(
    c: Canvas,
    *,
    half: tuple[float, float],
    pins: int,
    sides: int = 2,
    mark: str = "",
    bent: Bent = None,
    body: bool = True,
) -> None:
    """An integrated circuit with ``pins`` pins on each of two (left, right) or four sides."""
    for k in range(sides):
        d = c.at(0, 0, max(half) + 0.2, k * (np.pi if sides == 2 else np.pi / 2))
        reach, width = half if sides == 2 or k % 2 == 0 else half[::-1]
        pitch = 2 * width / pins
        v, which = _row(d.v, pins, pitch)
        d.body(box(d.u, v, 0.045, pitch * 0.34, reach + 0.08), TIN, 0.02, gloss=0.3)
        if body:
            lean = _lean(which + k * pins, bent, pitch) * np.clip((d.u - reach) / 0.09, 0, 1)
            pin = box(d.u, v - lean, 0.065, pitch * 0.20, reach + 0.045, r=0.01)
            d.body(pin, rgb(226, 228, 232), 0.02, gloss=0.4)
    if not body:
        return
    shape = box(c.u, c.v, half[0], half[1], r=0.02)
    c.shadow(shape, 0.022, 0.4, 0.06)
    c.body(shape, BLACK, 0.03, gloss=0.12)
    c.paint(0.7 * cover(disc(c.u, c.v, 0.022, 0.06 - half[0], 0.06 - half[1])), rgb(110, 110, 116))
    if mark:
        c.paint(0.8 * text(c.u, c.v, mark, 0, 0, min(half) * 0.72), rgb(200, 200, 200))


def can(c: Canvas, *, radius: float, body: bool = True) -> None:
    """An electrolytic capacitor: aluminium can with a black sector on a black base."""
    _pads(c, [(-radius, 0), (radius, 0)], 0.06, 0.05)
    if not body:
        return
    base = box(c.u, c.v, radius, radius, r=0.04)
    c.shadow(base, 0.03, 0.4, 0.07)
    c.body(base, rgb(34, 34, 38), 0.03)
    top = disc(c.u, c.v, radius * 0.92)
    c.body(top, rgb(196, 200, 206), 0.06, gloss=0.4)
    c.paint(cover(np.maximum(top + 0.02, radius * 0.38 + c.u)), rgb(34, 36, 44))


def transducer(c: Canvas, *, radius: float, body: bool = True) -> None:
    """An ultrasonic transducer: metal cup, dark gauze, bright cone in the middle."""
    c.paint(0.8 * ridge(disc(c.u, c.v, radius * 0.94), 0.014), SILK)
    _pads(c, [(-radius * 0.4, 0), (radius * 0.4, 0)], 0.05, 0.05)
    if not body:
        return
    cup = disc(c.u, c.v, radius)
    c.shadow(cup, 0.05, 0.5, 0.09)
    c.body(cup, rgb(190, 192, 198), 0.06, gloss=0.5)
    gauze = np.sin(c.u * 78) * np.sin(c.v * 78)
    c.body(disc(c.u, c.v, radius * 0.8), rgb(74, 76, 82) * (1 + 0.35 * gauze)[..., None], 0.02, gloss=0.1)
    c.body(disc(c.u, c.v, radius * 0.26), rgb(150, 152, 158), 0.08, gloss=0.3)


def trimmer(c: Canvas, *, half: float, body: bool = True) -> None:
    """A blue trimming potentiometer with a brass cross-slot screw."""
    _pads(c, [(-0.6 * half, half), (0.6 * half, half), (0, -half)], 0.045, 0.045)
    if not body:
        return
    shape = box(c.u, c.v, half, half, r=0.02)
    c.shadow(shape, 0.035, 0.45, 0.07)
    c.body(shape, rgb(44, 92, 176), 0.04, gloss=0.25)
    c.body(disc(c.u, c.v, half * 0.58), rgb(222, 206, 160), 0.05, gloss=0.35)
    cross = np.minimum(box(c.u, c.v, half * 0.42, half * 0.1), box(c.u, c.v, half * 0.1, half * 0.42))
    c.paint(0.85 * cover(cross), rgb(84, 70, 44))


def lamp(c: Canvas, *, radius: float, colour: Map, body: bool = True) -> None:
    """A round light-emitting diode, seen from above."""
    c.paint(0.8 * ridge(disc(c.u, c.v, radius * 0.94), 0.014), SILK)
    _pads(c, [(-radius * 0.5, 0), (radius * 0.5, 0)], 0.035, 0.035)
    if not body:
        return
    shape = disc(c.u, c.v, radius)
    c.shadow(shape, 0.04, 0.45, 0.07)
    c.body(shape, colour, radius * 0.95, gloss=0.75, shininess=18)
    c.paint(0.35 * ridge(disc(c.u, c.v, radius * 0.9), 0.012), rgb(240, 240, 244))


def crystal(c: Canvas, *, half: tuple[float, float], mark: str = "", body: bool = True) -> None:
    """A quartz crystal in a drawn metal can."""
    _pads(c, [(-half[0] * 0.5, 0), (half[0] * 0.5, 0)], 0.035, 0.035)
    if not body:
        return
    shape = box(c.u, c.v, half[0], half[1], r=min(half))
    c.shadow(shape, 0.03, 0.4, 0.06)
    c.body(shape, rgb(190, 192, 196), 0.06, gloss=0.5)
    c.body(shape + 0.03, rgb(214, 216, 220), 0.02, gloss=0.3)
    if mark:
        c.paint(0.8 * text(c.u, c.v, mark, 0, 0, min(half) * 1.3), rgb(60, 60, 66))


def socket(c: Canvas, *, half: tuple[float, float], body: bool = True) -> None:
    """A USB socket: folded sheet metal with two slots, opening towards -y."""
    _pads(c, [(-half[0], 0), (half[0], 0)], 0.045, half[1] * 0.5)
    if not body:
        return
    shape = box(c.u, c.v, half[0], half[1], r=0.03)
    c.shadow(shape, 0.035, 0.45, 0.07)
    c.body(shape, rgb(184, 186, 192), 0.03, gloss=0.4)
    slots = box(np.abs(c.u), c.v, 0.03, half[1] * 0.35, half[0] * 0.5, 0.1 * half[1])
    c.paint(0.8 * cover(slots), BLACK)
    c.paint(0.7 * ridge(c.v + half[1] * 0.72, 0.015) * cover(shape + 0.02), rgb(80, 82, 88))


def button(c: Canvas, *, half: float, body: bool = True) -> None:
    """A push button: square metal frame, round black cap."""
    _pads(c, [(x * half, y * half) for x in (-1, 1) for y in (-0.6, 0.6)], 0.05, 0.035)
    if not body:
        return
    shape = box(c.u, c.v, half, half, r=0.02)
    c.shadow(shape, 0.03, 0.4, 0.06)
    c.body(shape, rgb(186, 188, 194), 0.03, gloss=0.35)
    c.body(disc(c.u, c.v, half * 0.58), rgb(34, 34, 38), 0.05, gloss=0.3)


def header(
    c: Canvas, *, pins: int, pitch: float = 0.16, length: float = 0.27, bent: Bent = None, body: bool = True
) -> None:
    """A row of long gold pins towards +y, in a black strip."""
    hole_row(c, pins, pitch)
    if not body:
        return
    # A bent pin leaves its own column, so every column is drawn with the pins of its neighbours too.
    u, which = _row(c.u, pins, pitch)
    rows = np.full_like(u, 9.0)
    for neighbour in (-1, 0, 1):
        lean = _lean(which + neighbour, bent, pitch) * np.clip(c.v / length, 0, 1)
        there = (which + neighbour >= 0) & (which + neighbour < pins)
        pin = segment(u - neighbour * np.float32(pitch) - lean, c.v, 0, 0, 0, length, 0.026)
        rows = np.where(there, np.minimum(rows, pin), rows)
    c.shadow(rows, 0.025, 0.4, 0.06)
    c.body(rows, rgb(230, 198, 112), 0.02, gloss=0.45)
    strip = box(c.u, c.v, pins * pitch / 2, 0.06, r=0.02)
    c.shadow(strip, 0.02, 0.35, 0.05)
    c.body(strip, rgb(36, 36, 40), 0.03, gloss=0.15)
