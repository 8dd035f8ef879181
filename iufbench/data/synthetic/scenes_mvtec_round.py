"""MVTec AD's round objects, seen from above: bottle, cable, hazelnut, metal nut."""

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
    relief,
    rgb,
    ridge,
    rotate,
    text,
    wander,
)
from .scene import Canvas, Mutation, Params, Scene, changed, register
from .surface_mvtec import dye, pale_crack, poke, scuffs, specks

TAU = 2 * math.pi


def _turn(angle: Map, zero: float) -> Map:
    """Angles relative to ``zero``, in -pi..pi."""
    return (angle - np.float32(zero) + np.float32(math.pi)) % np.float32(TAU) - np.float32(math.pi)


# ---------------------------------------------------------------- bottle


def _breakage(low: float, high: float) -> Mutation:
    """A piece of the lip is gone: angle, half width (radians), depth reaching outwards."""

    def mutation(p: Params, rng: np.random.Generator) -> Params:
        return changed(p, broken=(rng.uniform(-3, 3), rng.uniform(low, high), int(rng.integers(1 << 30))))

    return mutation


@register("mvtec", "bottle")
class Bottle(Scene):
    """The mouth of a brown glass bottle in transmitted light."""

    angle = 180.0
    PROFILE: ClassVar = (  # radius, then the colour there
        (0.00, (22, 12, 8)), (0.34, (34, 18, 12)), (0.39, (14, 8, 6)), (0.42, (176, 98, 40)),
        (0.45, (88, 40, 18)), (0.55, (52, 22, 12)), (0.60, (150, 80, 34)), (0.62, (20, 10, 8)),
        (0.70, (64, 28, 14)), (0.77, (30, 14, 10)), (0.80, (140, 74, 30)), (0.83, (18, 10, 8)),
    )  # fmt: skip
    mutations: ClassVar = {"broken_large": _breakage(0.45, 0.65), "broken_small": _breakage(0.20, 0.28)}
    painters: ClassVar = {
        "contamination": specks(((214, 206, 190), (196, 160, 110), (120, 128, 120)), 9, 16),
        "crack": pale_crack,
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"broken": None, "swell": rng.normal(0, 0.006, 2)}

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(226, 228, 226))
        canvas.shade(0.012 * canvas.noise(n, 30, 3, 0.8))
        radius, angle = np.hypot(canvas.u, canvas.v), np.arctan2(canvas.v, canvas.u)
        swell = (
            1 + np.float32(p["swell"][0]) * np.cos(2 * angle) + np.float32(p["swell"][1]) * np.sin(2 * angle)
        )
        radius = (radius * swell).astype(np.float32)
        outline = radius - np.float32(0.83)
        knots = [r for r, _ in self.PROFILE]
        glass = np.empty_like(canvas.image)
        for channel in range(3):
            glass[..., channel] = np.interp(radius, knots, [c[channel] / 255 for _, c in self.PROFILE])
        # Reflections of two lamps are fixed in the image and do not rotate with the bottle.
        screen = _turn(angle, -p["angle"])
        for lamp, width in ((-2.2, 0.55), (0.9, 0.35)):
            lit = np.exp(-((_turn(screen, lamp) / np.float32(width)) ** 2))
            for ring, depth in ((0.50, 0.030), (0.665, 0.018), (0.79, 0.015)):
                glass += (0.55 * lit * ridge(radius - np.float32(ring), depth))[..., None] * rgb(
                    255, 246, 230
                )
        streaks = wander(n + 1, (angle / np.float32(TAU)) + np.float32(0.5), 90, True)
        glass *= (1 + 0.05 * streaks * (radius > 0.42))[..., None]
        if p["broken"]:
            self._break(canvas, glass, radius, angle, p["broken"])
        canvas.shadow(outline, 0.02, 0.25, 0.05)
        canvas.paint(cover(outline), glass)
        return canvas.image, (outline < -0.04) & (radius > 0.43)

    @staticmethod
    def _break(
        canvas: Canvas, glass: Picture, radius: Map, angle: Map, broken: tuple[float, float, int]
    ) -> None:
        """A jagged break in the lip: light passes through it, with conchoidal facets at its border."""
        middle, width, seed = broken
        off = _turn(angle, middle) / np.float32(width)
        jag = 0.05 * wander(seed, np.clip(off * 0.5 + 0.5, 0, 1), 9)
        reach = np.float32(0.43) + np.float32(0.22) * np.sqrt(np.clip(1 - off * off, 0, 1)) + jag
        bite = np.maximum(
            np.maximum(radius - reach, np.float32(0.40) - radius), (np.abs(off) - 1) * np.float32(width)
        )
        facets = np.clip(0.5 + 0.9 * canvas.noise(seed, 18, 1), 0, 1)
        inner = rgb(206, 176, 140) * (0.55 + 0.6 * facets)[..., None]
        weight = cover(bite)[..., None]
        glass += (inner - glass) * weight
        glass += (rgb(250, 240, 220) - glass) * (0.9 * ridge(bite, 0.018))[..., None]


# ---------------------------------------------------------------- cable


def _swap(p: Params, rng: np.random.Generator) -> Params:
    cores = list(p["cores"])
    i = int(rng.integers(3))
    cores[i] = cores[(i + 1) % 3]
    return changed(p, cores=cores)


def _missing_cable(p: Params, rng: np.random.Generator) -> Params:
    cores = list(p["cores"])
    cores[int(rng.integers(3))] = None
    return changed(p, cores=cores)


def _missing_wire(p: Params, rng: np.random.Generator) -> Params:
    """Some strands on one side of one core are gone."""
    return changed(p, bare=(int(rng.integers(3)), rng.uniform(0, TAU)))


def _bent_wire(p: Params, rng: np.random.Generator) -> Params:
    """A strand bends out of its core over the insulation."""
    return changed(p, bent=(int(rng.integers(3)), rng.uniform(0, TAU), rng.uniform(0.30, 0.42)))


def _cut_inner(p: Params, rng: np.random.Generator) -> Params:
    i = int(rng.integers(3))
    outwards = TAU * i / 3 + rng.uniform(-1.0, 1.0)
    return changed(p, notch=(i, outwards, rng.uniform(0.11, 0.15)))


def _cut_outer(p: Params, rng: np.random.Generator) -> Params:
    return changed(p, slit=(rng.uniform(-3, 3), rng.uniform(0.10, 0.16)))


@register("mvtec", "cable")
class Cable(Scene):
    """A cut cable: grey sheath, filler, three insulated cores of copper strands."""

    angle = 8.0
    CORES: ClassVar = ((64, 92, 170), (150, 84, 48), (96, 150, 70))
    mutations: ClassVar = {
        "bent_wire": _bent_wire,
        "cable_swap": _swap,
        "cut_inner_insulation": _cut_inner,
        "cut_outer_insulation": _cut_outer,
        "missing_cable": _missing_cable,
        "missing_wire": _missing_wire,
    }
    painters: ClassVar = {"poke_insulation": poke(13, 16)}

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {
            "cores": list(self.CORES), "place": rng.normal(0, 0.008, (3, 2)), "lay": rng.uniform(0, TAU, 3),
            "bare": None, "bent": None, "notch": None, "slit": None,
        }  # fmt: skip

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(64, 62, 66))
        canvas.shade(0.07 * canvas.noise(n, 40, 3, 0.8))
        u, v = canvas.u, canvas.v
        sheath, filler = disc(u, v, 0.86), disc(u, v, 0.74)
        if p["slit"]:
            turn, width = p["slit"]
            a, b = rotate(u, v, turn)
            gap = box(a, b, 0.16, width, 0.86, 0, r=0.03) + 0.015 * canvas.noise(n + 8, 16, 2)
            sheath = np.maximum(sheath, -gap)
        canvas.shadow(sheath, 0.03, 0.4)
        canvas.body(sheath, rgb(176, 178, 180), 0.03, 0.0007 * canvas.noise(n + 1, 40, 2), gloss=0.1)
        canvas.paint(cover(filler), rgb(78, 76, 76) * (1 + 0.10 * canvas.noise(n + 2, 24, 3)[..., None]))
        region = (sheath < -0.02) & (filler > 0.02)
        for i, core in enumerate(p["cores"]):
            if core is None:
                continue
            turn = TAU * i / 3 - TAU / 4
            c = canvas.at(
                0.395 * math.cos(turn) + p["place"][i][0], 0.395 * math.sin(turn) + p["place"][i][1], 0.48
            )
            insulation = disc(c.u, c.v, 0.33)
            if p["notch"] and p["notch"][0] == i:
                _, direction, size = p["notch"]
                bite = disc(c.u, c.v, size, 0.31 * math.cos(direction), 0.31 * math.sin(direction))
                insulation = np.maximum(insulation, -(bite + 0.012 * c.noise(n + 9, 20, 2)))
            c.shadow(insulation, 0.025, 0.45)
            c.body(insulation, rgb(*core), 0.05, 0.0005 * c.noise(n + 3, 40, 2), gloss=0.2)
            self._strands(c, p, i)
        for i in range(3):
            turn = TAU * i / 3 - TAU / 4
            off = disc(u, v, 0.265, 0.395 * math.cos(turn), 0.395 * math.sin(turn))
            region |= np.abs(off) < 0.06
        return canvas.image, region

    def _strands(self, c: Canvas, p: Params, i: int) -> None:
        """Copper strands in a hexagonal lay, each with slightly different gloss."""
        bore = disc(c.u, c.v, 0.22)
        c.paint(cover(bore), rgb(58, 34, 24))
        rng = generator(p["n"], "strands", i)
        spread = rng.uniform(0.85, 1.12, 40)
        lay, k = p["lay"][i], 0
        for row in range(-3, 4):
            for column in range(-3, 4):
                x, y = 0.094 * (column + 0.5 * (row % 2)), 0.081 * row
                k += 1
                if math.hypot(x, y) > 0.18:
                    continue
                x, y = x * math.cos(lay) - y * math.sin(lay), x * math.sin(lay) + y * math.cos(lay)
                if (
                    p["bare"]
                    and p["bare"][0] == i
                    and x * math.cos(p["bare"][1]) + y * math.sin(p["bare"][1]) > 0
                ):
                    continue
                s = c.at(x, y, 0.06)
                s.body(
                    disc(s.u, s.v, 0.047), rgb(206, 132, 86) * np.float32(spread[k % 40]), 0.035, gloss=0.3
                )
        if p["bent"] and p["bent"][0] == i:
            _, direction, reach = p["bent"]
            a, b = rotate(c.u, c.v, direction)
            bow = b - np.float32(0.10) * np.sin(np.clip(a / np.float32(reach), 0, 1) * np.float32(2.4))
            wire = box(a, bow, reach / 2, 0.040, reach / 2, 0, r=0.038)
            c.shadow(wire, 0.02, 0.5, 0.05)
            c.body(wire, rgb(214, 138, 90), 0.035, gloss=0.35)


# ---------------------------------------------------------------- hazelnut


def _print(p: Params, rng: np.random.Generator) -> Params:
    words = ("DBR", "K8", "HN3", "42X", "SOR")
    return changed(
        p, print=(words[int(rng.integers(5))], *rng.uniform(-0.15, 0.15, 2), rng.uniform(-0.5, 0.5))
    )


@register("mvtec", "hazelnut")
class Hazelnut(Scene):
    """A hazelnut lying on its side, in any direction."""

    angle = 180.0
    zoom = 0.04
    mutations: ClassVar = {"print": _print}
    surface = ("crack", "cut")
    painters: ClassVar = {"hole": poke(15, 20)}

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"print": None, "slim": rng.uniform(0.96, 1.04), "phase": rng.uniform(0, 1)}

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(30, 28, 30))
        canvas.shade(0.08 * canvas.noise(n, 40, 3, 0.8))
        u, v = canvas.u * np.float32(p["slim"]), canvas.v
        # An egg with a tip at the top.
        taper = 1 + 0.16 * np.clip(-v, -0.2, 1) ** 2
        tip = np.float32(0.10) * np.exp(-((u / 0.14) ** 2)) * (v < 0)
        shell = np.hypot(u * taper, v * np.float32(0.95)).astype(np.float32) - np.float32(0.68) - tip
        canvas.shadow(shell, 0.04, 0.6, 0.1)
        height = 0.42 * np.sqrt(np.clip(1 - (u * u + v * v) / np.float32(0.62), 0, 1))
        across = u / np.sqrt(np.clip(1 - (v / 0.95) ** 2, 0.06, 1))  # meridians run from tip to base
        stripes = wander(n + 1, np.clip(across * 0.55 + 0.5, 0, 1), 34)
        colour = rgb(156, 94, 50) * (1 + 0.10 * stripes + 0.05 * canvas.noise(n + 2, 20, 3))[..., None]
        # The scar at the base is pale and dull, its border ragged.
        scar = v - np.float32(0.44) + 0.10 * u * u + 0.025 * canvas.noise(n + 3, 14, 2)
        pale = rgb(196, 164, 120) * (1 + 0.09 * canvas.noise(n + 4, 30, 3, 0.8))[..., None]
        weight = cover(-scar, 3)[..., None]
        colour = colour * (1 - weight) + pale * weight
        if p["print"]:
            line, x, y, lean = p["print"]
            a, b = rotate(u - np.float32(x), v - np.float32(y), lean)
            ink = text(a, b, line, 0, 0, 0.34)[..., None]
            colour = colour * (1 - 0.85 * ink) + 0.85 * ink * rgb(232, 228, 218)
        diffuse, glint = relief(height.astype(np.float32), 14)
        dim = np.clip(diffuse, 0.25, 1.2)
        canvas.paint(cover(shell), colour * dim[..., None] + (0.12 * glint * (scar < 0))[..., None])
        return canvas.image, shell < -0.10


# ---------------------------------------------------------------- metal nut


def _bent_lobe(p: Params, rng: np.random.Generator) -> Params:
    bends = [0.0] * 4
    bends[int(rng.integers(4))] = float(rng.choice([-1, 1]) * rng.uniform(0.16, 0.22))
    return changed(p, bends=bends)


@register("mvtec", "metal_nut")
class MetalNut(Scene):
    """A four-lobed nut: swept lobes around a threaded collar, on a dark background."""

    angle = 180.0
    mutations: ClassVar = {"bent": _bent_lobe, "flip": lambda p, rng: changed(p, flipped=True)}
    painters: ClassVar = {
        "color": dye(((186, 60, 44), (50, 80, 160), (180, 130, 50))),
        "scratch": scuffs((3.5, 5.0), (70, 120), (2, 4)),
    }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng) | {"bends": [0.0] * 4, "flipped": False}

    def render(self, p: Params) -> tuple[Picture, Region]:
        n = p["n"]
        canvas = Canvas.posed(p, rgb(44, 44, 48))
        canvas.shade(0.08 * canvas.noise(n, 40, 3, 0.8))
        u, v = canvas.u, canvas.v
        radius, angle = np.hypot(u, v), np.arctan2(v, u)
        side = -1 if p["flipped"] else 1
        swept = angle * side + np.float32(0.55) * np.clip(radius - np.float32(0.45), 0, 1)
        reach = np.float32(0.66) + np.float32(0.16) * np.tanh(2.2 * np.cos(4 * swept))
        for k, bend in enumerate(p["bends"]):
            if bend:
                reach = reach + np.float32(bend) * np.exp(-((_turn(angle, TAU * k / 4 + 0.1) / 0.30) ** 2))
        plate, bore = (radius - reach) * np.float32(0.85), radius - np.float32(0.285)
        collar = radius - np.float32(0.42)
        nut = np.maximum(plate, -bore).astype(np.float32)
        canvas.shadow(nut, 0.035, 0.55)
        brushed = 0.0006 * wander(n + 1, np.clip(radius, 0, 1), 110) + 0.0004 * canvas.noise(
            n + 2, 48, 2, 0.9
        )
        step = (
            0.05 * np.clip(-collar / 0.03, 0, 1) if not p["flipped"] else -0.03 * ridge(collar - 0.06, 0.04)
        )
        metal = rgb(178, 180, 186) * (0.94 + 0.10 * np.cos(2 * _turn(angle, -p["angle"] + 0.7)))[..., None]
        canvas.body(nut, metal, 0.05, (step + brushed).astype(np.float32), gloss=0.22)
        thread = 0.5 + 0.5 * np.sin(np.float32(TAU) * (radius * 24 + angle / np.float32(TAU)))
        wall = np.maximum(bore, np.float32(0.215) - radius)
        canvas.paint(cover(wall), (0.16 + 0.34 * thread)[..., None] * rgb(220, 222, 230))
        return canvas.image, (nut < -0.04)
