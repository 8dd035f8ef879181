"""VisA's single objects: candle (four of them), cashew, chewing gum, fryum, pipe fryum."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from .primitives import Picture, Region, arc, box, cover, disc, dome, rgb, ridge, segment, smooth_min, wander
from .scene import Canvas, Params, Scene, changed, register


def _missing_wick(p: Params, rng: np.random.Generator) -> Params:
    gone = int(rng.integers(4))
    return changed(p, wick=[i != gone for i in range(4)])


def _missing_wax(p: Params, rng: np.random.Generator) -> Params:
    a = rng.uniform(0, 2 * math.pi)
    bite = 0.33 * math.cos(a), 0.33 * math.sin(a), rng.uniform(0.17, 0.22)
    return changed(p, bite=(int(rng.integers(4)), *bite))


@register("visa", "candle")
class Candle(Scene):
    """Four tea lights in tin cups, seen from above."""

    PLACES = ((-0.46, -0.46), (0.46, -0.46), (-0.46, 0.46), (0.46, 0.46))
    mutations: ClassVar = {"missing_wick": _missing_wick, "missing_wax": _missing_wax}
    surface = ("burn", "crack", "debris", "thread")

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "places": self.PLACES + rng.normal(0, 0.012, (4, 2)),
            "turn": rng.uniform(-0.3, 0.3, 4),
            "wick": [True] * 4,
            "bite": None,
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        canvas = Canvas.posed(p, rgb(50, 60, 82))
        canvas.shade(0.02 * canvas.noise(p["n"], 24, 2, 0.7))
        region = np.zeros(canvas.u.shape, bool)
        for i, (x, y) in enumerate(p["places"]):
            c = canvas.at(x, y, 0.50, p["turn"][i])
            radius, turn = np.hypot(c.u, c.v), np.arctan2(c.v, c.u)
            flutes = np.cos(turn * 40)
            cup, wax = radius - 0.41 + 0.004 * flutes, radius - 0.345
            c.shadow(cup, 0.035, 0.5)
            c.body(cup, rgb(158, 164, 178), 0.05, 0.008 * flutes * (radius > 0.37), gloss=0.5)
            c.paint(0.6 * ridge(wax, 0.025), rgb(44, 46, 54))
            if p["bite"] and p["bite"][0] == i:
                bx, by, size = p["bite"][1:]
                bite = disc(c.u, c.v, size, bx, by) + 0.02 * c.noise(p["n"] + 3, 12, 2)
                c.body(np.maximum(wax, bite), rgb(128, 130, 138), 0.01, gloss=0.5)
                wax = np.maximum(wax, -bite)
            molten = cover(radius - 0.17 + 0.012 * c.noise(p["n"] + 1, 8, 2), 6)
            wax_colour = rgb(246, 232, 200) + (rgb(226, 188, 124) - rgb(246, 232, 200)) * molten[..., None]
            dip = 0.03 * (1 - molten) + 0.002 * c.noise(p["n"] + 2, 14, 2) * (1 - molten)
            c.body(wax, wax_colour, 0.03, dip, gloss=0.16, shininess=60)
            if p["wick"][i]:
                wick = segment(c.u, c.v, -0.05, 0.015, 0.065, -0.025, 0.042)
                c.shadow(wick, 0.025, 0.4, 0.06)
                c.body(wick, rgb(70, 58, 50), 0.03, gloss=0.15)
            region |= disc(canvas.u, canvas.v, 0.34, x, y) < 0
        return canvas.image, region


def _end(p: Params, rng: np.random.Generator) -> Params:
    side = rng.choice([-1, 1])
    return changed(p, cut=(side, rng.uniform(0.28, 0.42), rng.uniform(-0.3, 0.3)))


def _split(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, gap=(rng.uniform(-0.5, 0.5), rng.uniform(0.035, 0.055)))


@register("visa", "cashew")
class Cashew(Scene):
    """One cashew nut on a dark mat."""

    angle = 6
    mutations: ClassVar = {"broken_end": _end, "split": _split}
    surface = ("burn", "hole", "scratch", "mould")

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "plump": rng.normal(0, 0.012),
            "bend": rng.normal(0, 0.012),
            "cut": None,
            "gap": None,
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        c = Canvas.posed(p, rgb(46, 74, 70))
        c.shade(0.02 * c.noise(p["n"], 24, 2, 0.7))
        u, v = c.u, c.v - np.float32(0.22)
        bend, half = 0.47 + p["bend"], 1.28
        t = np.arctan2(u, -v)  # along the nut: -half .. half
        thick = 0.275 + p["plump"] - 0.05 * np.clip(t / half, -1, 1) ** 2 + 0.03 * np.clip(t, -1, 1)
        body = arc(u, v, bend, half, 0) - thick + 0.008 * c.noise(p["n"] + 1, 7, 2)
        relief = dome(body, 0.27) + 0.004 * c.noise(
            p["n"] + 5, 16, 3, 0.6
        )  # a break leaves the rest as it is
        if p["cut"]:
            side, depth, tilt = p["cut"]
            rough = 0.05 * wander(p["n"] + 2, np.hypot(u, v), 14) + tilt * (np.hypot(u, v) - bend)
            body = np.maximum(body, (side * t - (half + 0.35 - depth) + rough) * bend)
        if p["gap"]:
            at, width = p["gap"]
            crack = np.abs(t - at + 0.05 * wander(p["n"] + 3, np.hypot(u, v), 9)) * bend - width
            body = np.maximum(body, -crack)
        c.shadow(body, 0.05, 0.5, 0.09)
        seam = ridge(np.hypot(u, v) - (bend - 0.13), 0.02) * (np.abs(t) < 1.15)
        tone = 1 + 0.035 * c.noise(p["n"] + 4, 9, 4, 0.7) - 0.16 * seam
        c.body(body, rgb(224, 190, 134) * tone[..., None], 0.03, relief, gloss=0.12, shininess=14)
        return c.image, body < -0.04


def _corner(p: Params, rng: np.random.Generator) -> Params:
    x, y = rng.choice([-1, 1]) * 0.55, rng.choice([-1, 1]) * 0.34
    return changed(p, bites=[(x, y, rng.uniform(0.20, 0.27))])


def _chips(p: Params, rng: np.random.Generator) -> Params:
    x, side = rng.uniform(-0.4, 0.4), rng.choice([-1, 1])
    return changed(
        p, bites=[(x + d, side * 0.47, rng.uniform(0.11, 0.15)) for d in (0, rng.uniform(0.1, 0.16))]
    )


@register("visa", "chewinggum")
class ChewingGum(Scene):
    """One sugar-coated pillow."""

    angle = 5
    mutations: ClassVar = {"missing_corner": _corner, "chipped_edge": _chips}
    surface = ("crack", "scratch", "dirt", "colour_spot")

    def sample(self, rng: np.random.Generator) -> Params:
        size = 0.64 + rng.normal(0, 0.012), 0.44 + rng.normal(0, 0.012)
        return self.pose(rng) | {"size": size, "bites": []}

    def render(self, p: Params) -> tuple[Picture, Region]:
        c = Canvas.posed(p, rgb(116, 50, 66))
        c.shade(0.02 * c.noise(p["n"], 24, 2, 0.7))
        pillow = box(c.u, c.v, p["size"][0], p["size"][1], r=0.22) + 0.006 * c.noise(p["n"] + 1, 6, 2)
        relief = dome(pillow, 0.28) + 0.0035 * c.noise(
            p["n"] + 3, 44, 2, 0.8
        )  # a bite leaves the rest as it is
        for x, y, radius in p["bites"]:
            bite = disc(c.u, c.v, radius, x, y) + 0.025 * c.noise(p["n"] + 2, 14, 2)
            pillow = np.maximum(pillow, -bite)
        c.shadow(pillow, 0.05, 0.5, 0.1)
        c.body(pillow, rgb(226, 232, 232), 0.03, relief, gloss=0.10, shininess=30)
        return c.image, pillow < -0.04


def _spoke(p: Params, rng: np.random.Generator) -> Params:
    gone = int(rng.integers(6))
    return changed(p, spokes=[i for i in range(6) if i != gone])


def _rim(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, gap=(rng.uniform(-math.pi, math.pi), rng.uniform(0.20, 0.32)))


@register("visa", "fryum")
class Fryum(Scene):
    """A puffed snack in the shape of a cart wheel."""

    angle = 5
    mutations: ClassVar = {"missing_spoke": _spoke, "broken_rim": _rim}
    surface = ("burn", "colour_spot", "crack", "debris")

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"spokes": list(range(6)), "gap": None}

    def render(self, p: Params) -> tuple[Picture, Region]:
        c = Canvas.posed(p, rgb(70, 92, 128))
        c.shade(0.02 * c.noise(p["n"], 24, 2, 0.7))
        radius, angle = np.hypot(c.u, c.v), np.arctan2(c.v, c.u)
        rim = np.abs(radius - 0.62) - 0.125
        if p["gap"]:
            centre, width = p["gap"]
            off = np.abs((angle - centre + math.pi) % (2 * math.pi) - math.pi)
            rough = 0.04 * c.noise(p["n"] + 3, 16, 2)
            rim = np.maximum(rim, (width - off) * 0.62 + rough)
        turn = angle / (math.pi / 3) % 6
        sector = np.floor(turn)
        spoke = np.maximum(
            radius * np.abs(np.sin((turn - sector - 0.5) * (math.pi / 3))) - 0.062, radius - 0.6
        )
        spoke[~np.isin(sector, p["spokes"])] = 1.0
        wheel = smooth_min(smooth_min(rim, spoke, 0.05), radius - 0.19, 0.06)
        wheel = wheel + 0.008 * c.noise(p["n"] + 1, 8, 2)
        c.shadow(wheel, 0.05, 0.45, 0.07)
        bubbles = 0.004 * c.noise(p["n"] + 2, 22, 2, 0.7)
        tone = (1 + 0.05 * c.noise(p["n"] + 4, 6, 2))[..., None]
        c.body(wheel, rgb(236, 170, 72) * tone, 0.11, bubbles, gloss=0.15, shininess=16)
        return c.image, wheel < -0.02


def _short(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, left=-0.68 + rng.uniform(0.20, 0.34), ragged=0.07)


def _slit(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, slit=(rng.uniform(-0.35, 0.2), rng.uniform(-0.12, 0.12), rng.uniform(0.035, 0.05)))


@register("visa", "pipe_fryum")
class PipeFryum(Scene):
    """A ribbed tube-shaped snack, one open end towards the viewer."""

    angle = 4
    mutations: ClassVar = {"broken_end": _short, "split": _slit}
    surface = ("mould", "colour_spot", "crack", "hole")

    def sample(self, rng: np.random.Generator) -> Params:
        phase = rng.uniform(0, 2 * math.pi)
        return self.pose(rng) | {"phase": phase, "left": -0.68, "ragged": 0.006, "slit": None}

    def render(self, p: Params) -> tuple[Picture, Region]:
        c = Canvas.posed(p, rgb(88, 96, 112))
        c.shade(0.02 * c.noise(p["n"], 24, 2, 0.7))
        u, v, r, mouth = c.u, c.v, 0.34, 0.52
        bulge = 0.012 * c.noise(p["n"] + 1, 5, 2)
        left = p["left"] - 0.10 * np.sqrt(np.clip(1 - (v / r) ** 2, 0, 1))
        left = left + p["ragged"] * wander(p["n"] + 2, v * 0.5 + 0.5, 26)
        tube = np.maximum(np.maximum(np.abs(v) - r, u - mouth), left - u) + bulge
        lip = (np.hypot((u - mouth) / 0.36, v / r) - 1) * 0.13 + bulge
        hollow = (np.hypot((u - mouth) / 0.26, v / 0.72 / r) - 1) * 0.10
        whole = np.minimum(tube, lip)
        c.shadow(whole, 0.06, 0.45, 0.10)
        across = np.clip(v / r, -1, 1)
        ribs = 0.016 * np.cos(np.arcsin(across) * 9 + 2.2 * u + p["phase"])
        height = (
            0.9 * np.sqrt(np.clip(r * r - v * v, 0.004, None)) + ribs + 0.005 * c.noise(p["n"] + 3, 30, 2)
        )
        c.body(tube, rgb(224, 128, 62), 0.02, height, gloss=0.12, shininess=18)
        c.body(lip, rgb(236, 160, 90), 0.05, 0.006 * c.noise(p["n"] + 3, 30, 2), gloss=0.1)
        c.paint(cover(hollow, 3), rgb(92, 44, 24) * (1 + 0.5 * np.clip(u - mouth, -0.3, 0.3))[..., None])
        if p["slit"]:
            x, y, width = p["slit"]
            zigzag = 0.02 * wander(p["n"] + 5, u * 0.5 + 0.5, 22)
            slit = np.maximum(segment(u, v + zigzag, x - 0.26, y, x + 0.2, y + 0.05, width), tube)
            c.paint(cover(slit), rgb(70, 32, 18))
            c.paint(0.5 * ridge(slit - 0.012, 0.012), rgb(250, 196, 130))
        return c.image, (whole < -0.03) & (hollow > 0.03)
