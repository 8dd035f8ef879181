"""MVTec AD's five textures: carpet, grid, leather, tile, wood."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from .primitives import SIZE, Map, Picture, Region, cover, generator, noise, paint, relief, rgb, rotate, shade
from .scene import Canvas, Params, Scene, changed, register
from .surface import PAINTERS
from .surface_mvtec import (
    dye,
    frayed_cut,
    glue_strip,
    gray_stroke,
    liquid,
    metal_contamination,
    poke,
    rough,
    shifted,
    thread,
)


def _everywhere() -> Region:
    return np.ones((SIZE, SIZE), bool)


@register("mvtec", "carpet")
class Carpet(Scene):
    """A coarse twill: grey warp over two wefts and under one."""

    angle = 4.0
    THREADS = 8.0  # per scene unit

    painters: ClassVar = {
        "color": dye(((224, 50, 44), (30, 70, 190), (30, 150, 80))),
        "cut": frayed_cut,
        "hole": PAINTERS["hole"],
        "metal_contamination": metal_contamination,
        "thread": thread(((206, 60, 54), (230, 226, 214), (50, 70, 150))),
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"phase": rng.uniform(0, 6, 2)}

    def render(self, p: Params) -> tuple[Picture, Region]:
        canvas = Canvas.posed(p, rgb(64, 62, 60))
        n = p["n"]
        warp = canvas.u * np.float32(self.THREADS) + np.float32(p["phase"][0]) + 0.10 * noise(n, 3, 2)
        weft = canvas.v * np.float32(self.THREADS) + np.float32(p["phase"][1]) + 0.10 * noise(n + 1, 3, 2)
        i, j = np.floor(warp), np.floor(weft)
        across, along = warp - i - np.float32(0.5), weft - j - np.float32(0.5)
        over = (i + j) % 3 != 0  # warp on top
        # A thread is round across, and dives towards the crossing where it goes below.
        warp_height = np.where(over, 1.0, 0.45) * np.sqrt(np.clip(1 - (across / 0.5) ** 2, 0, 1))
        weft_height = np.where(over, 0.45, 1.0) * np.sqrt(np.clip(1 - (along / 0.5) ** 2, 0, 1))
        weft_height *= 1 - np.where(over, 0, 0.9) * across**2
        height = np.maximum(warp_height, weft_height).astype(np.float32)
        spread = generator(n, "threads").uniform(0.92, 1.08, (2, 64)).astype(np.float32)
        tone = np.where(
            warp_height > weft_height, spread[0][i.astype(int) % 64], spread[1][j.astype(int) % 64]
        )
        colour = np.where((warp_height > weft_height)[..., None], rgb(168, 160, 150), rgb(128, 126, 128))
        diffuse, _ = relief(0.045 * height)
        canvas.image[:] = colour * (tone * (0.30 + 0.70 * height) * diffuse)[..., None]
        canvas.shade(0.07 * noise(n + 2, 64, 2, 0.9))
        return canvas.image, _everywhere()


def _break_wire(p: Params, rng: np.random.Generator) -> Params:
    """Remove a piece of wire between two crossings."""
    return changed(p, broken=(int(rng.integers(2)), *rng.integers(-2, 2, 2)))


def _bend_wires(p: Params, rng: np.random.Generator) -> Params:
    turn, push = rng.uniform(0, 2 * math.pi), rng.uniform(0.13, 0.18)
    bend = (
        *rng.uniform(-0.55, 0.55, 2),
        rng.uniform(0.13, 0.18),
        push * math.cos(turn),
        push * math.sin(turn),
    )
    return changed(p, bend=bend)


@register("mvtec", "grid")
class Grid(Scene):
    """A woven mesh of steel wire on the diagonal, on a grey background; greyscale."""

    angle = 4.0
    grey = True
    WIRES = 3.1  # per scene unit, in both directions
    mutations: ClassVar = {"bent": _bend_wires, "broken": _break_wire}
    painters: ClassVar = {
        "glue": PAINTERS["glue"],
        "metal_contamination": metal_contamination,
        "thread": thread(((246, 246, 246), (18, 18, 18))),
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"phase": rng.uniform(0, 1, 2), "bend": None, "broken": None}

    def render(self, p: Params) -> tuple[Picture, Region]:
        n, pitch = p["n"], np.float32(self.WIRES)
        canvas = Canvas.posed(p, rgb(84, 84, 84))
        canvas.shade(0.05 * noise(n, 5, 3))
        u, v = canvas.u, canvas.v
        if p["bend"]:
            x, y, reach, dx, dy = p["bend"]
            near = np.exp(-((u - np.float32(x)) ** 2 + (v - np.float32(y)) ** 2) / np.float32(2 * reach**2))
            u, v = u + np.float32(dx) * near, v + np.float32(dy) * near
        u, v = rotate(u, v * np.float32(0.8), math.pi / 4)
        u, v = u * pitch + np.float32(p["phase"][0]), v * pitch + np.float32(p["phase"][1])
        nearest = np.round(u), np.round(v)
        radius = np.float32(0.115)
        wires = []
        for k, (a, b) in enumerate(((u, v), (v, u))):
            off = np.abs(a - nearest[k]) / radius
            wire = cover((off - 1) * (radius / pitch))
            if p["broken"] and p["broken"][0] == k:
                wire = wire * ~((nearest[k] == p["broken"][1]) & (np.floor(b) == p["broken"][2]))
            # the wire dives at every second crossing: darker where it runs below
            wave = np.cos(np.float32(math.pi) * b) * np.where(nearest[k] % 2 == k, 1, -1)
            tone = 0.20 + 0.58 * np.sqrt(np.clip(1 - off * off, 0, 1)) + 0.10 * wave
            wires.append((wire, wave, tone + 0.03 * noise(n + 1 + k, 60, 2, 0.9)))
        cast = np.maximum(wires[0][0], wires[1][0])
        canvas.shade(-0.4 * shifted(cast, 5))
        (wire_a, wave_a, tone_a), (wire_b, wave_b, tone_b) = wires
        first = (wave_a > wave_b).astype(np.float32)
        for wire, tone in ((wire_a, tone_a), (wire_b, tone_b), (wire_a * first, tone_a)):
            canvas.paint(wire, tone[..., None] * rgb(240, 240, 240))
        return canvas.image, _everywhere()


@register("mvtec", "leather")
class Leather(Scene):
    """Brown leather with a pebbled grain."""

    angle = 180.0
    painters: ClassVar = {
        "color": dye(((200, 34, 34), (30, 44, 120), (30, 116, 76))),
        "cut": PAINTERS["cut"],
        "fold": PAINTERS["fold"],
        "glue": PAINTERS["glue"],
        "poke": poke(9, 12),
    }

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(132, 78, 50))
        # Creases run where either of two noise fields crosses zero; between them lie the pebbles.
        creases = np.minimum(np.abs(noise(n, 22, 1)), np.abs(noise(n + 1, 22, 1)))
        pebbles = np.clip(creases * 2.2, 0, 1) ** np.float32(0.7)
        diffuse, glint = relief(0.006 * pebbles + 0.005 * noise(n + 2, 6, 2), 30)
        canvas.image *= (diffuse * (0.80 + 0.22 * pebbles))[..., None]
        canvas.image += 0.10 * glint[..., None]
        canvas.shade(0.03 * noise(n + 4, 64, 2, 0.9))
        canvas.shade(0.05 * noise(n + 3, 3, 2))
        return canvas.image, _everywhere()


def _chips(seed: int, count: int, low: float, high: float) -> Map:
    """Coverage of angular stone chips of radius low..high pixels, drawn at twice the size."""
    rng, fine = generator(seed, "chips"), 2
    image = Image.new("L", (SIZE * fine, SIZE * fine), 0)
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, y = rng.uniform(-8, SIZE + 8, 2)
        corners = int(rng.integers(4, 8))
        turn = np.sort(rng.uniform(0, 2 * math.pi, corners))
        reach = rng.uniform(low, high) * rng.uniform(0.75, 1.1, corners)
        draw.polygon(
            [
                ((x + a * math.cos(t)) * fine, (y + a * math.sin(t)) * fine)
                for t, a in zip(turn, reach, strict=True)
            ],
            fill=255,
        )
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / np.float32(255)


@register("mvtec", "tile")
class Tile(Scene):
    """Polished terrazzo: chips of several stones in pale cement."""

    CHIPS = (
        ((232, 230, 224), 170, 4, 10), ((150, 150, 152), 190, 4, 11), ((98, 100, 106), 120, 3, 9),
        ((176, 158, 140), 90, 3, 8),
    )  # fmt: skip
    painters: ClassVar = {
        "crack": PAINTERS["crack"],
        "glue_strip": glue_strip,
        "gray_stroke": gray_stroke,
        "oil": PAINTERS["oil"],
        "rough": rough(0.72),
    }

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(196, 194, 188))
        for k, (colour, count, low, high) in enumerate(self.CHIPS):
            tint = 1 + 0.05 * noise(n + 10 + k, 24, 1)
            canvas.paint(0.92 * _chips(n + k, count, low, high), tint[..., None] * rgb(*colour))
        canvas.shade(0.025 * noise(n + 5, 64, 2, 0.9))
        return canvas.image, _everywhere()


@register("mvtec", "wood")
class Wood(Scene):
    """A planed board, its grain upright, with pores along it."""

    angle = 2.0
    painters: ClassVar = {
        "color": dye(((186, 50, 44), (54, 84, 160), (40, 110, 70))),
        "hole": PAINTERS["hole"],
        "liquid": liquid,
        "scratch": PAINTERS["scratch"],
    }

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(188, 134, 82))
        bow = 0.17 * noise(n, 2, 3, 0.4, (0.5, 1)) + 0.02 * noise(n + 1, 6, 2, 0.5, (0.7, 1))
        rings = (canvas.u + bow) * np.float32(6.5) + np.float32(n % 97)
        late = (rings % 1) ** 3  # early wood is pale and turns dark towards the ring's edge
        paint(canvas.image, 0.62 * late, rgb(118, 72, 40))
        fibre = noise(n + 2, 6, 3, 0.8, (1, 14))
        pores = np.clip((noise(n + 3, 8, 2, 0.9, (1, 16)) - 1.15) * 3, 0, 1)
        shade(canvas.image, 0.05 * fibre - 0.22 * pores)
        return canvas.image, _everywhere()
