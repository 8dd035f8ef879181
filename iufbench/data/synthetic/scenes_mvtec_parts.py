"""MVTec AD's transistor and zipper."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from .primitives import (
    Map,
    Picture,
    Region,
    box,
    cover,
    disc,
    generator,
    noise,
    relief,
    rgb,
    ridge,
    text,
)
from .scene import Canvas, Params, Scene, changed, register
from .surface_mvtec import frayed_cut, rough

# ---------------------------------------------------------------- transistor

_PITCH = 0.27  # of the board's holes; the legs are in three of them


def _bent_lead(p: Params, rng: np.random.Generator) -> Params:
    bends = [0.0] * 3
    bends[int(rng.integers(3))] = float(rng.choice([-1, 1]) * rng.uniform(0.16, 0.22))
    return changed(p, bends=bends)


def _cut_lead(p: Params, rng: np.random.Generator) -> Params:
    ends = [1.0] * 3
    ends[int(rng.integers(3))] = rng.uniform(0.15, 0.45)
    return changed(p, ends=ends)


def _damaged_case(p: Params, rng: np.random.Generator) -> Params:
    """One of the upper corners, or an edge, is broken off."""
    x, y = ((-0.34, -0.72), (0.34, -0.72), (-0.36, -0.40), (0.36, -0.40))[int(rng.integers(4))]
    return changed(p, damage=(x, y, rng.uniform(0.16, 0.22), int(rng.integers(1 << 30))))


def _misplaced(p: Params, rng: np.random.Generator) -> Params:
    turn = rng.choice([-1, 1]) * rng.uniform(0.22, 0.40)
    return changed(p, place=(*rng.uniform(-0.10, 0.10, 2), turn))


@register("mvtec", "transistor")
class Transistor(Scene):
    """A three-legged transistor lying on a perforated board."""

    angle = 2.0
    shift = 0.02
    mutations: ClassVar = {
        "bent_lead": _bent_lead,
        "cut_lead": _cut_lead,
        "damaged_case": _damaged_case,
        "misplaced": _misplaced,
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "place": (*rng.normal(0, 0.01, 2), rng.normal(0, 0.02)),
            "bends": [0.0] * 3,
            "ends": [1.0] * 3,
            "damage": None,
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(168, 122, 74))
        canvas.shade(0.05 * canvas.noise(n, 6, 4, 0.8, (6, 1)))
        self._holes(canvas)
        x, y, turn = p["place"]
        whole = canvas.at(x, y, 2.0, turn)
        for k in range(3):
            self._leg(whole.at((k - 1) * 0.22, 0.32, (0.40, 0.60)), p, k)
        self._case(whole.at(0, -0.42, 0.62), p)
        return canvas.image, box(whole.u, whole.v, 0.32, 0.26, 0, -0.42) < 0

    @staticmethod
    def _leg(c: Canvas, p: Params, k: int) -> None:
        """Leg ``k`` from the case, spreading to its hole; drawn around its centre."""
        u, v = c.u + np.float32((k - 1) * 0.22), c.v + np.float32(0.44)  # v from 0 at the case to 0.85
        top, foot, length = (k - 1) * 0.17, (k - 1) * _PITCH, 0.85 * p["ends"][k]
        along = np.clip(v / np.float32(0.85), 0, 1)
        middle = top + (foot - top) * np.clip(along * 2.5 - 0.3, 0, 1)
        middle = middle + p["bends"][k] * np.sin(np.float32(math.pi) * along) ** 2
        leg = np.maximum(np.abs(u - middle) - np.float32(0.040), np.abs(v - length / 2) - length / 2)
        c.shadow(leg.astype(np.float32), 0.03, 0.45, 0.05)
        c.body(leg.astype(np.float32), rgb(186, 188, 194), 0.04, gloss=0.35)
        if p["ends"][k] == 1.0:  # solder where the leg enters its hole
            c.body(disc(u, v, 0.085, foot, 0.85), rgb(176, 178, 184), 0.07, gloss=0.35)

    @staticmethod
    def _case(c: Canvas, p: Params) -> None:
        case = box(c.u, c.v, 0.36, 0.30, r=0.07)
        if p["damage"]:
            x, y, size, seed = p["damage"]
            bite = disc(c.u, c.v, size, x, y + 0.42) + 0.03 * c.noise(seed, 14, 2)
            filler = rgb(176, 168, 152) * (1 + 0.25 * c.noise(seed + 1, 40, 2, 0.8))[..., None]
            c.paint(cover(np.maximum(case, bite)), filler)
            c.paint(cover(np.maximum(case, np.abs(bite + 0.02) - np.float32(0.02))), filler * 0.55)
            case = np.maximum(case, -bite)
        c.shadow(case, 0.04, 0.5, 0.09)
        colour = rgb(52, 52, 56) * (1 + 0.08 * c.noise(p["n"] + 1, 60, 2, 0.9))[..., None]
        ink = np.maximum(text(c.u, c.v, "BC547", 0, -0.06, 0.17), text(c.u, c.v, "B-92", 0, 0.12, 0.13))
        colour = colour + (rgb(196, 196, 190) - colour) * (0.75 * ink)[..., None]
        c.body(case, colour, 0.06, gloss=0.12)

    @staticmethod
    def _holes(canvas: Canvas) -> None:
        """Copper rings around holes on a square pitch, one row at the transistor's feet."""
        u = canvas.u / np.float32(_PITCH)
        v = (canvas.v - np.float32(0.73)) / np.float32(_PITCH)
        radius = np.hypot(u - np.round(u), v - np.round(v)) * np.float32(_PITCH)
        canvas.paint(cover(radius - np.float32(0.082)), rgb(206, 150, 92))
        canvas.shade(0.25 * ridge(radius - np.float32(0.078), 0.02))
        canvas.paint(cover(radius - np.float32(0.042)), rgb(32, 24, 20))


# ---------------------------------------------------------------- zipper

_TEETH = 0.155  # from one tooth to the next on the same side
_COUNT = 20  # visible or reachable teeth per side


def _break_teeth(p: Params, rng: np.random.Generator) -> Params:
    """Two or three adjacent teeth are broken off."""
    length = p["length"].copy()
    side, first = int(rng.integers(2)), int(rng.integers(5, 12))
    length[side, first : first + int(rng.integers(2, 4))] = rng.uniform(0.0, 0.25)
    return changed(p, length=length)


def _split_teeth(p: Params, rng: np.random.Generator) -> Params:
    """The two rows have come apart over a stretch."""
    return changed(p, gap=(rng.uniform(-0.6, 0.6), rng.uniform(0.18, 0.25), rng.uniform(0.10, 0.13)))


def _squeeze_teeth(p: Params, rng: np.random.Generator) -> Params:
    """Some adjacent teeth are tilted."""
    lean = p["lean"].copy()
    first = int(rng.integers(5, 11))
    lean[:, first : first + 4] += rng.choice([-1, 1], (2, 4)) * rng.uniform(0.3, 0.55, (2, 4))
    return changed(p, lean=lean)


def _fray(p: Params, rng: np.random.Generator) -> Params:
    """The outer border of one tape is torn."""
    tear = (
        int(rng.choice([-1, 1])),
        rng.uniform(-0.6, 0.6),
        rng.uniform(0.14, 0.22),
        int(rng.integers(1 << 30)),
    )
    return changed(p, tear=tear)


@register("mvtec", "zipper")
class Zipper(Scene):
    """A closed zipper, upright: two woven tapes and interlocking metal teeth; greyscale."""

    angle = 2.0
    shift = 0.02
    grey = True
    mutations: ClassVar = {
        "broken_teeth": _break_teeth,
        "fabric_border": _fray,
        "split_teeth": _split_teeth,
        "squeezed_teeth": _squeeze_teeth,
    }
    painters: ClassVar = {"fabric_interior": frayed_cut, "rough": rough(2.3)}

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "phase": rng.uniform(0, 1), "length": 1 + rng.normal(0, 0.02, (2, _COUNT)),
            "lean": rng.normal(0, 0.03, (2, _COUNT)), "gap": None, "tear": None,
        }  # fmt: skip

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(186, 186, 186))
        canvas.shade(0.02 * canvas.noise(n, 30, 3, 0.8))
        u, v = canvas.u, canvas.v
        out = self._outwards(p, u, v)
        tape = np.maximum(out - np.float32(0.80), np.float32(0.05) - out)
        if p["tear"]:
            where, y, reach, seed = p["tear"]
            ragged = disc(u, v, reach, where * 0.84, y) + 0.05 * canvas.noise(seed, 26, 3, 0.9)
            tape = np.maximum(tape, -ragged)
        canvas.shadow(tape, 0.025, 0.35)
        self._fabric(canvas, n, out, tape)
        for k in range(2):
            self._row(canvas.at(0, 0, (0.45, 1.6)), p, k)
        return canvas.image, (tape < -0.04) & (out > 0.22)

    @staticmethod
    def _outwards(p: Params, u: Map, v: Map) -> Map:
        """Distance from the centre line on the material, less where the rows are apart."""
        out = np.abs(u)
        if not p["gap"]:
            return out
        y, reach, width = p["gap"]
        apart = np.exp(-(((v - np.float32(y)) / np.float32(reach)) ** 2))
        return out - np.float32(width) * apart * np.clip((0.5 - out) / 0.3, 0, 1)

    @staticmethod
    def _fabric(canvas: Canvas, n: int, out: Map, tape: Map) -> None:
        """A herringbone weave with a thicker cord beside the teeth and a seam."""
        v = canvas.v
        ribs = np.sin(np.float32(95) * (v + 0.8 * np.abs(out - np.float32(0.5))) + 0.3 * noise(n + 1, 6, 2))
        cord = ridge(out - np.float32(0.26), 0.07)
        diffuse, _ = relief(0.0025 * ribs + 0.03 * cord)
        fabric = np.float32(0.22) * diffuse * (1 + 0.16 * ribs + 0.06 * noise(n + 2, 64, 2, 0.9))
        stitch = ridge(out - np.float32(0.40), 0.016) * (np.sin(np.float32(52) * v) > -0.3)
        fabric = fabric + 0.16 * stitch
        canvas.paint(cover(tape), fabric[..., None] * rgb(255, 255, 255))

    @staticmethod
    def _row(c: Canvas, p: Params, k: int) -> None:
        """One side's teeth (0 left, 1 right) at once: each pixel belongs to the nearest tooth."""
        side = np.float32(2 * k - 1)
        outwards = c.u * side + Zipper._outwards(p, c.u, c.v) - np.abs(c.u)
        position = c.v / np.float32(_TEETH) + np.float32(p["phase"] + 0.5 * k + _COUNT / 2)
        index = np.clip(np.floor(position), 0, _COUNT - 1).astype(np.int32)
        along = (position - np.floor(position) - np.float32(0.5)) * np.float32(_TEETH)
        along = along - p["lean"][k].astype(np.float32)[index] * (outwards - np.float32(0.20)) * np.float32(
            0.6
        )
        reach = 0.27 * p["length"][k].astype(np.float32)[index]  # from the cord at 0.22 to beyond the middle
        middle = np.float32(0.22) - reach / 2
        tooth = np.maximum(np.abs(outwards - middle) - reach / 2, np.abs(along) - np.float32(0.034))
        head = np.hypot(outwards - (np.float32(0.22) - reach + 0.035), along * 0.9) - np.float32(0.042)
        shape = np.minimum(tooth, np.where(reach > 0.12, head, np.float32(1)))
        c.shadow(shape.astype(np.float32), 0.015, 0.5, 0.04)
        spread = generator(p["n"], "teeth", k).uniform(0.9, 1.06, _COUNT).astype(np.float32)[index]
        c.body(shape.astype(np.float32), (0.68 * spread)[..., None] * rgb(255, 255, 255), 0.03, gloss=0.35)
