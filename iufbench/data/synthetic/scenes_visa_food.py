"""VisA's eatable and burnable objects: candle, cashew, chewing gum."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .primitives import Picture, Region, cover, disc, rgb, ridge
from .scene import Canvas, Params, Scene, changed, register


def _missing_wick(p: Params, rng: np.random.Generator) -> Params:
    gone = int(rng.integers(4))
    return changed(p, wick=[i != gone for i in range(4)])


def _missing_wax(p: Params, rng: np.random.Generator) -> Params:
    a = rng.uniform(0, 6.28)
    return changed(
        p, chunk=(int(rng.integers(4)), 0.32 * np.cos(a), 0.32 * np.sin(a), rng.uniform(0.14, 0.2))
    )


@register("visa", "candle")
class Candle(Scene):
    """Four tea-light candles in tin cups, seen from above."""

    PLACES = ((-0.46, -0.46), (0.46, -0.46), (-0.46, 0.46), (0.46, 0.46))

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "jitter": rng.normal(0, 0.012, (4, 2)),
            "lean": rng.uniform(-0.5, 0.5, 4),
            "wick": [True] * 4,
            "melt": None,
            "chunk": None,
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        canvas = Canvas.posed(p, rgb(52, 60, 78))
        canvas.shade(0.06 * canvas.noise(p["n"], 30, 3, 0.8))
        region = np.zeros(canvas.u.shape, bool)
        for i, (x, y) in enumerate(self.PLACES + p["jitter"]):
            c = canvas.at(x, y, 0.50, p["lean"][i])
            cup, wax = disc(c.u, c.v, 0.40), disc(c.u, c.v, 0.355)
            c.shadow(cup, 0.035, 0.5)
            c.body(cup, rgb(188, 190, 196), 0.05, gloss=0.4)
            wobble = 0.015 * c.noise(p["n"] + 1, 8, 3)
            pool = -0.03 * cover(disc(c.u, c.v, 0.15), 24) + wobble
            colour = rgb(236, 226, 200) * (1 + 0.02 * c.noise(p["n"] + 2, 40, 2)[..., None])
            if p["chunk"] and p["chunk"][0] == i:
                _, cx, cy, radius = p["chunk"]
                bite = disc(c.u, c.v, radius, cx, cy) + 0.02 * c.noise(p["n"] + 3, 12, 2)
                c.paint(cover(wax), rgb(150, 150, 156))
                wax = np.maximum(wax, -bite)
            c.body(wax, colour, 0.04, pool, gloss=0.12)
            if p["wick"][i]:
                wick = disc(c.u / 1.8, c.v, 0.030, 0.01, 0)
                c.shadow(wick, 0.02, 0.35, 0.05)
                c.paint(cover(wick), rgb(46, 40, 36))
                c.paint(0.8 * ridge(disc(c.u, c.v, 0.012, 0.03, 0), 0.015), rgb(120, 104, 88))
            region |= disc(canvas.u, canvas.v, 0.34, x, y) < 0
        return canvas.image, region

    mutations: ClassVar = {"missing_wick": _missing_wick, "missing_wax": _missing_wax}
    surface = ("stain", "crack", "debris")
