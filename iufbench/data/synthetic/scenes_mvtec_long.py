"""MVTec AD's elongated objects: capsule, pill, screw, toothbrush."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from .primitives import Map, Picture, Region, box, cover, disc, dome, generator, rgb, ridge, segment, text
from .scene import Canvas, Mutation, Params, Scene, changed, register
from .surface_mvtec import dye, pale_crack, poke, scuffs, specks


def _misprint(fields: tuple[str, ...]) -> Mutation:
    """A wrong imprint, or the correct one in the wrong place."""

    def mutation(p: Params, rng: np.random.Generator) -> Params:
        if rng.random() < 0.3:
            side = rng.choice([-1, 1])
            return changed(
                p, offset=(side * rng.uniform(0.07, 0.10), rng.choice([-1, 1]) * rng.uniform(0.07, 0.10))
            )
        return changed(p, imprint=fields[int(rng.integers(len(fields)))])

    return mutation


# ---------------------------------------------------------------- capsule


def _squeeze(p: Params, rng: np.random.Generator) -> Params:
    dent = (rng.uniform(-0.5, 0.5), rng.uniform(0.12, 0.2), rng.uniform(0.10, 0.14), rng.choice([-1, 1]))
    return changed(p, dent=dent)


@register("mvtec", "capsule")
class Capsule(Scene):
    """A two-part gelatine capsule, black and orange, with its strength printed on it."""

    angle = 8.0
    mutations: ClassVar = {"faulty_imprint": _misprint(("50", "5 0", "300", "00", "")), "squeeze": _squeeze}
    painters: ClassVar = {
        "crack": pale_crack,
        "poke": poke(12, 15),
        "scratch": scuffs((3.0, 4.5), (70, 110), (2, 4)),
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "imprint": "500", "offset": (0.0, 0.0), "dent": None, "joint": rng.uniform(-0.02, 0.02),
            "roll": rng.uniform(-0.03, 0.03),
        }  # fmt: skip

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(222, 224, 224))
        canvas.shade(0.02 * canvas.noise(n, 30, 3, 0.8))
        u, v = canvas.u, canvas.v
        right = u > np.float32(p["joint"])
        shape = segment(u, v, -0.50, 0, 0.50, 0, 0.33) + np.where(right, np.float32(0.015), np.float32(0))
        if p["dent"]:
            x, width, depth, side = p["dent"]
            pressed = np.exp(-(((u - np.float32(x)) / np.float32(width)) ** 2))
            shape = shape + np.float32(depth) * pressed * np.clip(0.5 + v * np.float32(side / 0.3), 0, 1)
        colour = np.where(right[..., None], rgb(224, 112, 40), rgb(40, 38, 40))
        dx, dy = p["offset"]
        ink = text(u, v, p["imprint"], -0.41 + dx, p["roll"] + dy, 0.31)
        colour = colour + (rgb(226, 224, 216) - colour) * (0.9 * ink)[..., None]
        ring = ridge(u + np.float32(0.12 - p["joint"]), 0.02) + ridge(u - np.float32(0.3 + p["joint"]), 0.015)
        height = 0.004 * ring + 0.0004 * canvas.noise(n + 1, 30, 2)
        canvas.shadow(shape, 0.035, 0.35, 0.09)
        canvas.body(shape, colour, 0.33, height, gloss=0.55, shininess=40)
        return canvas.image, shape < -0.05


# ---------------------------------------------------------------- pill


def _chip(p: Params, rng: np.random.Generator) -> Params:
    turn = rng.uniform(0, 2 * math.pi)
    return changed(p, chip=(0.76 * math.cos(turn), 0.50 * math.sin(turn), rng.uniform(0.13, 0.18)))


@register("mvtec", "pill")
class Pill(Scene):
    """An oval white pill with an imprint and red speckles, on a dark background."""

    angle = 6.0
    mutations: ClassVar = {"faulty_imprint": _misprint(("F", "FE", "EF", "HF", "")), "chip": _chip}
    surface = ("crack",)
    painters: ClassVar = {
        "color": dye(((196, 150, 60), (120, 150, 190), (200, 110, 120)), 16, 24, 0.7),
        "contamination": specks(((50, 44, 40), (60, 84, 60), (110, 74, 40)), 8, 12, (1, 3)),
        "scratch": scuffs((3.0, 4.2), (60, 100), (2, 4)),
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"imprint": "FF", "offset": (0.0, 0.0), "chip": None}

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(36, 38, 42))
        canvas.shade(0.08 * canvas.noise(n, 40, 3, 0.8))
        u, v = canvas.u, canvas.v
        oval = (np.hypot(u / np.float32(0.80), v / np.float32(0.54)) - 1) * np.float32(0.54)
        oval = oval.astype(np.float32)
        shape = oval
        if p["chip"]:
            x, y, size = p["chip"]
            bite = disc(u, v, size, x, y) + 0.03 * canvas.noise(n + 5, 14, 2)
            shape = np.maximum(oval, -bite)
        canvas.shadow(shape, 0.035, 0.5, 0.09)
        rng = generator(n, "speckles")
        colour = np.broadcast_to(rgb(228, 226, 220), canvas.image.shape).copy()
        for x, y, size in zip(
            rng.uniform(-0.7, 0.7, 26),
            rng.uniform(-0.45, 0.45, 26),
            rng.uniform(0.008, 0.02, 26),
            strict=True,
        ):
            spot = canvas.at(x, y, 0.04)
            part = colour[spot.window]
            part += (rgb(190, 84, 76) - part) * (0.75 * cover(disc(spot.u, spot.v, size), 2))[..., None]
        dx, dy = p["offset"]
        imprint = text(u, v, p["imprint"], dx, dy, 0.46)
        height = 0.10 * np.sqrt(np.clip(1 - (u / 0.85) ** 2 - (v / 0.58) ** 2, 0, 1))
        height = height - 0.016 * imprint + 0.0003 * canvas.noise(n + 2, 60, 2, 0.9)
        colour *= (1 - 0.16 * imprint)[..., None]
        canvas.body(shape, colour, 0.10, height.astype(np.float32), gloss=0.06, shininess=10)
        return canvas.image, shape < -0.05


# ---------------------------------------------------------------- screw

_HEAD, _NECK, _THREAD, _TIP = -0.84, -0.56, -0.16, 0.86  # along the axis


def _gouges(low: float, high: float, half: float) -> Mutation:
    """Two or three deep scratches across the part of the axis between ``low`` and ``high``."""

    def mutation(p: Params, rng: np.random.Generator) -> Params:
        lines = []
        lean = rng.uniform(-0.08, 0.08)
        for x in rng.uniform(low, high, int(rng.integers(2, 4))):
            lines.append(
                (
                    x,
                    -half * rng.uniform(0.5, 1),
                    x + lean + rng.uniform(-0.03, 0.03),
                    half * rng.uniform(0.5, 1),
                )
            )
        return changed(p, gouges=lines)

    return mutation


def _front(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, front=(rng.choice([-1, 1]) * rng.uniform(0.9, 1.4), rng.uniform(0.68, 0.76)))


def _thread_side(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, flat=(rng.uniform(-0.05, 0.25), rng.uniform(0.22, 0.32), rng.choice([-1, 1])))


def _thread_top(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, crushed=(rng.uniform(0.0, 0.4), rng.uniform(-0.02, 0.02), rng.uniform(0.12, 0.15)))


@register("mvtec", "screw")
class Screw(Scene):
    """A wood screw on a light table, rotated more than most objects; greyscale."""

    angle = 45.0
    shift = 0.04
    grey = True
    mutations: ClassVar = {
        "manipulated_front": _front,
        "scratch_head": _gouges(-0.78, -0.64, 0.24),
        "scratch_neck": _gouges(-0.50, -0.24, 0.13),
        "thread_side": _thread_side,
        "thread_top": _thread_top,
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "phase": rng.uniform(0, 1), "front": None, "gouges": (), "flat": None, "crushed": None,
        }  # fmt: skip

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(206, 206, 206))
        canvas.shade(0.02 * canvas.noise(n, 20, 3, 0.8))
        u, v = canvas.u, canvas.v
        tip = np.float32(_TIP)
        if p["front"]:
            bend, tip_at = p["front"]
            v = v - np.float32(bend) * np.clip(u - np.float32(0.42), 0, 1) ** 2
            tip = np.float32(tip_at)
        crest = self._crest(p, u, v)
        point = np.clip((np.float32(_TIP) - u) / np.float32(0.30), 0, 1) ** 0.8
        threaded = np.clip((u - np.float32(_THREAD)) / np.float32(0.05), 0, 1)
        head = 0.29 - 0.16 * np.clip((u + 0.70) / 0.14, 0, 1) ** 0.7
        shaft = 0.15 - 0.02 * threaded + 0.068 * threaded * crest
        radius = np.where(u < np.float32(_NECK), head, shaft * point).astype(np.float32)
        ends = np.maximum(np.float32(_HEAD) - u, u - tip)
        shape = np.maximum(np.abs(v) - radius, ends)
        canvas.shadow(shape, 0.035, 0.45, 0.08)
        height = np.sqrt(np.clip(radius * radius - v * v, 0, 1)) + 0.010 * threaded * crest
        tone = np.full_like(u, 0.60) - 0.20 * threaded * (1 - crest)
        tone -= 0.30 * ridge(u - np.float32(_NECK), 0.02) + 0.25 * (
            segment(u, v, -0.82, 0, -0.80, 0, 0.10) < 0
        )
        for x0, y0, x1, y1 in p["gouges"]:
            mark = cover(segment(u, v, x0, y0, x1, y1, 0.026))
            height = height - 0.015 * mark
            tone = tone * (1 - 0.6 * mark)
        tone *= 1 + 0.05 * canvas.noise(n + 1, 60, 2, 0.9)
        canvas.body(shape, tone[..., None] * rgb(255, 255, 255), 0.04, height.astype(np.float32), gloss=0.35)
        return canvas.image, shape < -0.02

    @staticmethod
    def _crest(p: Params, u: Map, v: Map) -> Map:
        """Height of the thread in 0..1: a triangle wave along the helix."""
        turns = (u + 0.22 * v) * np.float32(10.5) + np.float32(p["phase"])
        crest = 1 - np.abs(2 * (turns % 1) - 1)
        if p["flat"]:
            start, length, side = p["flat"]
            gone = cover(box(u, v, length / 2, 0.30, start + length / 2, side * 0.30, r=0.03))
            crest = crest * (1 - gone)
        if p["crushed"]:
            x, y, size = p["crushed"]
            gone = cover(disc(u, v, size, x, y), 2)
            crest = crest * (1 - gone) + 0.9 * gone
        return crest


# ---------------------------------------------------------------- toothbrush


def _bend_tufts(p: Params, rng: np.random.Generator) -> Params:
    """All tufts around a position lean to one side."""
    row, column, turn = int(rng.integers(1, 8)), int(rng.integers(4)), rng.uniform(0, 2 * math.pi)
    lean = p["lean"].copy()
    for i in range(9):
        for j in range(4):
            if math.hypot(i - row, j - column) < 1.6:
                lean[i, j] = 0.13 * np.array([math.cos(turn), math.sin(turn)]) + rng.normal(0, 0.02, 2)
    return changed(p, lean=lean)


def _lose_tufts(p: Params, rng: np.random.Generator) -> Params:
    gone = p["gone"].copy()
    row, column = int(rng.integers(8)), int(rng.integers(3))
    gone[row : row + 2, column : column + 2] = True
    return changed(p, gone=gone)


@register("mvtec", "toothbrush")
class Toothbrush(Scene):
    """The head of a toothbrush from above: nine rows of four tufts."""

    angle = 4.0
    mutations: ClassVar = {"bent_bristles": _bend_tufts, "missing_tuft": _lose_tufts}
    painters: ClassVar = {
        "color": dye(((170, 100, 30), (110, 60, 40), (50, 120, 50)), 18, 26, 0.95),
        "contamination": specks(((60, 40, 28), (196, 70, 60), (40, 90, 60)), 12, 17, (1, 3)),
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "lean": rng.normal(0, 0.008, (9, 4, 2)),
            "gone": np.zeros((9, 4), bool),
            "size": rng.normal(1, 0.04, (9, 4)),
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(28, 28, 32))
        canvas.shade(0.08 * canvas.noise(n, 40, 3, 0.8))
        u, v = canvas.u, canvas.v
        head, handle = box(u, v, 0.44, 0.83, 0, -0.10, r=0.30), box(u, v, 0.13, 0.5, 0, 1.0, r=0.05)
        shape = np.minimum(head, handle)
        canvas.shadow(shape, 0.035, 0.5)
        canvas.body(shape, rgb(70, 150, 168), 0.10, gloss=0.35)
        for i in range(9):
            for j in range(4):
                width = 0.72 if i in (0, 8) else 1.0  # the rows at both ends are narrower
                x, y = (j - 1.5) * 0.186 * width, -0.10 + (i - 4) * 0.162
                c = canvas.at(x, y, 0.30 if np.hypot(*p["lean"][i, j]) > 0.06 else 0.16)
                socket = disc(c.u, c.v, 0.066)
                c.paint(cover(socket), rgb(16, 40, 48))
                if p["gone"][i, j]:
                    continue
                self._tuft(c, p, i, j)
        return canvas.image, (head < -0.06)

    @staticmethod
    def _tuft(c: Canvas, p: Params, i: int, j: int) -> None:
        dx, dy = p["lean"][i, j]
        fringe = 0.008 * c.noise(p["n"] + 1, 64, 2, 0.9)
        tuft = segment(c.u, c.v, 0, 0, dx, dy + 1e-4, 0.078 * p["size"][i, j]) + fringe
        colour = rgb(236, 238, 240) if (i + j) % 2 else rgb(84, 132, 206)
        bristles = 1 + 0.12 * c.noise(p["n"] + 2, 100, 1)
        c.shadow(tuft, 0.02, 0.5, 0.05)
        crown = 0.70 + 0.30 * dome(tuft, 0.06) / 0.06
        c.paint(cover(tuft), colour * (bristles * crown)[..., None])
