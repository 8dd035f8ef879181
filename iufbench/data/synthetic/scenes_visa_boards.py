"""VisA's four circuit boards: a common renderer, four layouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from . import board_parts as parts
from .primitives import Map, Picture, Region, box, cover, disc, rgb, segment, text
from .scene import Canvas, Mutation, Params, Scene, changed, register

CERAMIC, AMBER, GREEN_LED, CLEAR, DARK = (
    rgb(186, 150, 106), rgb(222, 150, 50), rgb(90, 190, 110), rgb(206, 218, 232), rgb(58, 40, 66)
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One component: how it is drawn, position, rotation in degrees, and its possible defects."""

    draw: Callable[..., None]
    x: float
    y: float
    reach: float
    options: Mapping[str, Any] = field(default_factory=dict)
    angle: float = 0.0
    can_go: bool = True  # may be missing: only visibly large components
    can_turn: bool = False
    pins: int = 0  # pins that may be bent, ``bend`` of them at a time
    bend: int = 1


@dataclass(frozen=True)
class HoleRow:
    """Plated holes in a row; solder may bridge two neighbours."""

    x: float
    y: float
    count: int
    pitch: float
    angle: float = 0.0


def _defects(placed: tuple[Part, ...], rows: tuple[HoleRow, ...]) -> dict[str, Mutation]:
    """The structural defects that a board with these parts can have."""

    def missing_part(p: Params, rng: np.random.Generator) -> Params:
        gone = rng.choice([i for i, part in enumerate(placed) if part.can_go])
        return changed(p, faults={int(gone): {"body": False}})

    def turned_part(p: Params, rng: np.random.Generator) -> Params:
        which = rng.choice([i for i, part in enumerate(placed) if part.can_turn])
        turn = p["turn"].copy()
        turn[which] += rng.choice([-1, 1]) * rng.uniform(0.45, 0.9)
        return changed(p, turn=turn)

    def bent_pin(p: Params, rng: np.random.Generator) -> Params:
        which = int(rng.choice([i for i, part in enumerate(placed) if part.pins]))
        part = placed[which]
        first = int(rng.integers(part.pins // part.bend)) * part.bend
        off = rng.choice([-1, 1]) * rng.uniform(0.75, 1.0)
        return changed(p, faults={which: {"bent": (first, part.bend, off)}})

    def solder_bridge(p: Params, rng: np.random.Generator) -> Params:
        row = int(rng.integers(len(rows)))
        return changed(p, bridge=(row, int(rng.integers(rows[row].count - 1))))

    possible = [missing_part, turned_part, solder_bridge]
    if any(part.pins for part in placed):
        possible.append(bent_pin)
    return {f.__name__: f for f in possible}


class Board(Scene):
    """A printed circuit board on a bench; subclasses define layout and colours."""

    angle, shift, zoom = 1.5, 0.015, 0.01
    bench: ClassVar[Map]
    mask_colour: ClassVar[Map]  # solder resist
    half: ClassVar[tuple[float, float]]
    holes: ClassVar[tuple[tuple[float, float], ...]]
    traces: ClassVar[tuple[tuple[float, ...], ...]]  # polylines x0, y0, x1, y1, ...
    prints: ClassVar[tuple[tuple[str, float, float, float], ...]] = ()
    rows: ClassVar[tuple[HoleRow, ...]]
    parts: ClassVar[tuple[Part, ...]]

    def sample(self, rng: np.random.Generator) -> Params:
        n = len(self.parts)
        return self.pose(rng) | {
            "off": rng.normal(0, 0.004, (n, 2)),
            "turn": rng.normal(0, 0.015, n),
            "faults": {},
            "bridge": None,
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        c = Canvas.posed(p, self.bench)
        c.shade(0.02 * c.noise(p["n"], 24, 2, 0.7))
        outline = box(c.u, c.v, self.half[0], self.half[1], r=0.05)
        for x, y in self.holes:
            outline = np.maximum(outline, -disc(c.u, c.v, 0.05, x, y))
        c.shadow(outline, 0.035, 0.45, 0.07)
        weave = (1 + 0.03 * c.noise(p["n"] + 1, 20, 3, 0.8))[..., None]
        c.body(outline, self.mask_colour * weave, 0.02, gloss=0.1)
        self._print(c)
        for row in self.rows:
            parts.hole_row(self._along(c, row), row.count, row.pitch)
        if p["bridge"]:
            row = self.rows[p["bridge"][0]]
            d = self._along(c, row)
            x = (p["bridge"][1] + 1 - row.count / 2) * row.pitch
            blob = segment(d.u, d.v, x - row.pitch / 2, 0, x + row.pitch / 2, 0.01, 0.058)
            d.body(blob + 0.012 * d.noise(p["n"] + 2, 24, 1), parts.TIN, 0.05, gloss=0.6)
        for i, part in enumerate(self.parts):
            x, y = part.x + p["off"][i, 0], part.y + p["off"][i, 1]
            d = c.at(x, y, part.reach, math.radians(part.angle) + p["turn"][i])
            part.draw(d, **{**part.options, **p["faults"].get(i, {})})
        return c.image, outline < -0.04

    @staticmethod
    def _along(c: Canvas, row: HoleRow) -> Canvas:
        length, width = row.count * row.pitch / 2 + 0.05, 0.1
        upright = abs(row.angle) == 90
        return c.at(row.x, row.y, (width, length) if upright else (length, width), math.radians(row.angle))

    def _print(self, c: Canvas) -> None:
        copper = self.mask_colour + (rgb(190, 190, 150) - self.mask_colour) * np.float32(0.30)
        for line in self.traces:
            corners = list(zip(line[::2], line[1::2]))
            for (x0, y0), (x1, y1) in pairwise(corners):
                x, y = (x0 + x1) / 2, (y0 + y1) / 2
                d = c.at(x, y, (abs(x1 - x0) / 2 + 0.04, abs(y1 - y0) / 2 + 0.04))
                d.paint(cover(segment(d.u, d.v, x0 - x, y0 - y, x1 - x, y1 - y, 0.013)), copper)
        for word, x, y, height in self.prints:
            d = c.at(x, y, (len(word) * height / 2.6, height))
            d.paint(0.9 * text(d.u, d.v, word, 0, 0, height), parts.SILK)
        for x, y in self.holes:
            d = c.at(x, y, 0.14)
            ring = np.abs(disc(d.u, d.v, 0.075)) - 0.025
            d.body(ring, parts.GOLD, 0.02, gloss=0.3)


@register("visa", "pcb1")
class UltrasonicSensor(Board):
    """Blue ultrasonic range sensor: two large transducers, crystal, four-pin header."""

    bench, mask_colour, half = rgb(134, 122, 104), rgb(26, 70, 150), (0.90, 0.46)
    holes = ((-0.82, -0.38), (0.82, -0.38), (-0.82, 0.38), (0.82, 0.38))
    traces = (
        (-0.2, -0.36, -0.1, -0.36, 0.12, -0.36, 0.18, -0.30),
        (-0.08, 0.30, -0.08, 0.12),
        (0.08, 0.30, 0.08, 0.12),
        (-0.24, 0.30, -0.24, 0.38, -0.7, 0.38),
        (0.24, 0.30, 0.24, 0.38, 0.7, 0.38),
        (-0.6, -0.40, -0.3, -0.40),
        (0.3, -0.40, 0.6, -0.40),
    )
    prints = (("T", -0.84, 0.05, 0.15), ("R", 0.84, 0.05, 0.15), ("US-40", 0, -0.39, 0.12))
    rows = (HoleRow(0, 0.27, 4, 0.16),)
    parts = (
        Part(parts.transducer, -0.50, -0.02, 0.46, {"radius": 0.315}),
        Part(parts.transducer, 0.50, -0.02, 0.46, {"radius": 0.315}),
        Part(parts.crystal, 0, -0.24, 0.24, {"half": (0.14, 0.065)}, can_turn=True),
        Part(parts.package, 0, 0.03, 0.30, {"half": (0.07, 0.13), "pins": 4}, can_turn=True),
        Part(parts.header, 0, 0.42, 0.46, {"pins": 4}, can_go=False, pins=4),
    )
    mutations = _defects(parts, rows)
    surface = ("scratch", "debris")


@register("visa", "pcb2")
class InfraredSensor(Board):
    """Green, upright infrared obstacle sensor: two diodes, blue trimmer, comparator, three-pin header."""

    bench, mask_colour, half = rgb(112, 94, 116), rgb(28, 98, 58), (0.46, 0.80)
    holes = ((0, -0.32),)
    traces = (
        (-0.24, -0.44, -0.40, -0.28, -0.40, 0.60),
        (0.24, -0.44, 0.40, -0.28, 0.40, 0.60),
        (-0.16, 0.62, -0.16, 0.50, -0.30, 0.40),
        (0.0, 0.62, 0.0, 0.48),
        (0.16, 0.62, 0.16, 0.50, 0.30, 0.40),
        (-0.32, 0.0, -0.32, 0.16),
    )
    prints = (("IR2", 0.0, -0.46, 0.13),)
    rows = (HoleRow(0, 0.60, 3, 0.16),)
    parts = (
        Part(parts.lamp, -0.22, -0.62, 0.24, {"radius": 0.15, "colour": CLEAR}),
        Part(parts.lamp, 0.22, -0.62, 0.24, {"radius": 0.15, "colour": DARK}),
        Part(parts.trimmer, 0.06, -0.06, 0.34, {"half": 0.19}, can_turn=True),
        Part(
            parts.package,
            0,
            0.33,
            0.36,
            {"half": (0.12, 0.15), "pins": 4, "mark": "393"},
            can_turn=True,
            pins=8,
        ),
        Part(parts.chip, -0.32, -0.10, 0.20, {"half": (0.10, 0.055), "colour": CERAMIC}, 90, can_turn=True),
        Part(parts.chip, 0.34, 0.48, 0.18, {"half": (0.08, 0.045)}, 90, can_go=False),
        Part(parts.header, 0, 0.76, 0.46, {"pins": 3}, can_go=False, pins=3),
    )
    mutations = _defects(parts, rows)
    surface = ("burn", "stain")


@register("visa", "pcb3")
class RelayDriver(Board):
    """Red, wide driver board: two aluminium cans, a 14-pin chip, a button, a row of holes on either side."""

    bench, mask_colour, half = rgb(70, 76, 84), rgb(170, 38, 44), (0.86, 0.60)
    holes = ((-0.78, -0.52), (0.78, -0.52), (-0.78, 0.52), (0.78, 0.52))
    traces = (
        (-0.70, -0.24, -0.52, -0.24, -0.40, -0.36),
        (-0.70, 0.08, -0.24, 0.08),
        (-0.70, 0.24, -0.40, 0.24, -0.30, 0.34, -0.10, 0.34),
        (0.70, -0.08, 0.30, -0.08),
        (0.70, 0.08, 0.30, 0.08),
        (0.70, 0.24, 0.58, 0.24, 0.50, 0.34),
        (-0.14, -0.52, 0.62, -0.52),
        (-0.60, 0.54, 0.10, 0.54),
    )
    prints = (("DRV-07", 0.30, 0.48, 0.13), ("+", -0.20, -0.44, 0.13))
    rows = (HoleRow(-0.74, 0, 5, 0.16, 90), HoleRow(0.74, 0, 5, 0.16, 90))
    parts = (
        Part(parts.can, -0.46, -0.28, 0.30, {"radius": 0.18}),
        Part(parts.can, -0.02, -0.28, 0.30, {"radius": 0.18}),
        Part(
            parts.package, 0.06, 0.16, 0.46, {"half": (0.13, 0.27), "pins": 7, "mark": "L29"}, 90,
            can_turn=True,
        ),
        Part(parts.button, 0.46, -0.30, 0.28, {"half": 0.15}, can_turn=True),
        Part(parts.chip, -0.46, 0.06, 0.22, {"half": (0.11, 0.06), "colour": parts.BLACK}, can_turn=True),
        Part(parts.chip, -0.46, 0.38, 0.22, {"half": (0.11, 0.06), "colour": CERAMIC}, can_turn=True),
        Part(parts.lamp, 0.54, 0.22, 0.16, {"radius": 0.075, "colour": GREEN_LED}),
    )  # fmt: skip
    mutations = _defects(parts, rows)
    surface = ("scratch", "burn", "dirt")


@register("visa", "pcb4")
class Controller(Board):
    """Black, square controller board: USB socket, rotated four-sided chip, crystal, two rows of holes."""

    bench, mask_colour, half = rgb(164, 190, 196), rgb(40, 40, 50), (0.72, 0.82)
    holes = ((-0.62, -0.72), (0.62, -0.72))
    traces = (
        (-0.60, -0.42, -0.40, -0.42, -0.24, -0.22),
        (-0.60, -0.14, -0.42, -0.14, -0.32, -0.06),
        (-0.60, 0.14, -0.42, 0.14, -0.34, 0.08),
        (0.60, -0.42, 0.40, -0.42, 0.24, -0.22),
        (0.60, -0.14, 0.42, -0.14, 0.32, -0.06),
        (0.60, 0.14, 0.42, 0.14, 0.34, 0.08),
        (-0.60, 0.42, -0.44, 0.42, -0.20, 0.26),
        (0.60, 0.42, 0.44, 0.42, 0.20, 0.26),
        (-0.10, -0.50, -0.10, -0.34),
        (0.10, -0.50, 0.10, -0.34),
    )
    prints = (("M4", -0.40, -0.56, 0.13), ("5V", 0.40, -0.56, 0.13))
    rows = (HoleRow(-0.62, 0, 9, 0.14, 90), HoleRow(0.62, 0, 9, 0.14, 90))
    parts = (
        Part(parts.socket, 0, -0.72, 0.34, {"half": (0.21, 0.19)}),
        Part(
            parts.package, 0, 0.02, 0.48, {"half": (0.23, 0.23), "pins": 7, "sides": 4, "mark": "M4F"}, 45,
            can_turn=True,
        ),
        Part(parts.crystal, -0.28, 0.42, 0.26, {"half": (0.16, 0.07), "mark": "16"}, can_turn=True),
        Part(parts.button, 0.30, 0.46, 0.24, {"half": 0.13}, can_turn=True),
        Part(parts.chip, 0.0, 0.66, 0.22, {"half": (0.11, 0.06), "colour": AMBER}, can_turn=True),
        Part(parts.lamp, -0.34, 0.68, 0.14, {"radius": 0.065, "colour": GREEN_LED}, can_go=False),
        Part(parts.chip, 0.36, 0.70, 0.18, {"half": (0.09, 0.05), "colour": CERAMIC}, can_turn=True),
    )  # fmt: skip
    mutations = _defects(parts, rows)
    surface = ("scratch", "burn", "debris")
