"""VisA's objects with several items: capsules, macaroni in a grid and macaroni in any pose."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from .primitives import Map, Picture, Region, cover, disc, rgb, ridge, segment, wander
from .scene import Canvas, Params, Scene, changed, register


def _one(p: Params, rng: np.random.Generator, state: str, *values: float) -> Params:
    """Add a defect to one item."""
    return changed(p, bad={int(rng.integers(len(p["places"]))): (state, *values)})


def _wrong_colour(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "colour", int(rng.integers(3)))


def _broken_capsule(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "broken", rng.choice([-1, 1]))


def _squeezed(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "squeezed", rng.uniform(-0.04, 0.04), rng.uniform(0.085, 0.105))


def _leak(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "leak", rng.choice([-1, 1]), rng.uniform(0.14, 0.17))


@register("visa", "capsules")
class Capsules(Scene):
    """Nine two-coloured gel capsules, loosely scattered on a pale tray."""

    angle, shift, zoom = 1.5, 0.012, 0.01
    GREEN, AMBER = rgb(44, 122, 84), rgb(226, 172, 70)
    WRONG = (rgb(150, 40, 48), rgb(52, 74, 150), rgb(120, 120, 124))
    PLACES = tuple((-0.60 + 0.60 * (i % 3), -0.60 + 0.60 * (i // 3)) for i in range(9))
    mutations: ClassVar = {
        "wrong_colour": _wrong_colour,
        "broken": _broken_capsule,
        "squeezed": _squeezed,
        "leak": _leak,
    }
    surface = ("scratch", "dirt")

    def sample(self, rng: np.random.Generator) -> Params:
        slants = math.pi / 2 + np.array([0.7, -0.4, 0.5, -0.6, 0.8, -0.3, 0.3, -0.8, 0.6])
        return self.pose(rng) | {
            "places": self.PLACES + rng.normal(0, 0.012, (9, 2)),
            "slant": slants + rng.normal(0, 0.07, 9),
            "bad": {},
        }

    def render(self, p: Params) -> tuple[Picture, Region]:
        canvas = Canvas.posed(p, rgb(222, 220, 226))
        canvas.shade(0.02 * canvas.noise(p["n"], 24, 2, 0.7))
        region = np.zeros(canvas.u.shape, bool)
        for i, ((x, y), slant) in enumerate(zip(p["places"], p["slant"])):
            c = canvas.at(x, y, 0.50, slant)
            region[c.window] |= self._capsule(c, p["n"], *p["bad"].get(i, ("",)))
        return canvas.image, region

    def _capsule(self, c: Canvas, n: int, state: str, *values: float) -> Region:
        u, v, radius = c.u, c.v, 0.14
        whole = segment(u, v, -0.165, 0, 0.165, 0, radius)
        first, second = self.GREEN, self.AMBER
        if state == "colour":
            first = self.WRONG[int(values[0])]
            second = first * np.float32(0.8)
        if state == "leak":
            side, size = values
            pool = disc(u, v, size, side * 0.24, 0.10) + 0.03 * c.noise(n + 4, 14, 2)
            c.body(pool, (self.GREEN if side < 0 else self.AMBER) * np.float32(0.85), 0.03, gloss=0.5)
        if state == "broken":
            edge = values[0] * u - 0.02 + 0.02 * wander(n + 5, v * 2 + 0.5, 12)
            whole = np.maximum(whole, edge)
        if state == "squeezed":
            x, depth = values
            whole = np.maximum(whole, np.abs(v) - radius + depth * np.exp(-(((u - x) / 0.10) ** 2)))
        c.shadow(whole, 0.025, 0.4, 0.06)
        colour = second + (first - second) * cover(u - 0.01)[..., None]
        lap = 0.010 * cover(u - 0.01)
        c.body(whole, colour, 0.13, lap, gloss=0.55, shininess=30)
        c.paint(0.25 * ridge(u - 0.012, 0.012) * cover(whole), rgb(30, 40, 30))
        return whole < -0.01


def _broken_elbow(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "broken", rng.choice([-1, 1]), rng.uniform(0.7, 1.1))


def _chipped(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "chip", rng.uniform(-0.6, 0.6), rng.uniform(0.095, 0.125))


def _split_elbow(p: Params, rng: np.random.Generator) -> Params:
    return _one(p, rng, "split", rng.uniform(-0.35, 0.35), rng.uniform(0.030, 0.042))


class Elbows(Scene):
    """Four elbow macaroni; subclasses define positions and illumination."""

    TABLE: ClassVar[Map]
    PASTA: ClassVar[Map]
    BEND, HALF, THICK = 0.26, 1.40, 0.145
    mutations: ClassVar = {"broken": _broken_elbow, "chipped": _chipped, "split": _split_elbow}

    def render(self, p: Params) -> tuple[Picture, Region]:
        canvas = Canvas.posed(p, self.TABLE)
        canvas.shade(0.02 * canvas.noise(p["n"], 24, 2, 0.7))
        region = np.zeros(canvas.u.shape, bool)
        for i, ((x, y), turn) in enumerate(zip(p["places"], p["turn"])):
            c = canvas.at(x, y, 0.47, turn)
            region[c.window] |= self._elbow(c, p["n"] + 10 * i, *p["bad"].get(i, ("",)))
        return canvas.image, region

    def _elbow(self, c: Canvas, n: int, state: str, *values: float) -> Region:
        u, v = c.u, c.v - np.float32(0.12)
        radius = np.hypot(u, v)
        t = np.arctan2(u, -v)
        across = (radius - self.BEND) / self.THICK
        beyond = (np.abs(t) - self.HALF) * self.BEND  # past the ends, along the tube
        tube = np.maximum((np.abs(across) - 1) * self.THICK, beyond)
        mouth = (np.hypot(beyond / 0.055, across) - 1) * 0.07  # the ends are seen slightly from the front
        hollow = (np.hypot(beyond / 0.034, across / 0.62) - 1) * 0.04
        whole = np.minimum(tube, mouth) + 0.004 * c.noise(n + 1, 8, 2)
        if state == "broken":
            side, depth = values
            ragged = 0.10 * wander(n + 2, across * 0.5 + 0.5, 8)
            whole = np.maximum(whole, (side * t - self.HALF + depth + ragged) * self.BEND)
        if state == "chip":
            angle, size = values
            x, y = (self.BEND + 0.11) * math.sin(angle), -(self.BEND + 0.11) * math.cos(angle)
            whole = np.maximum(whole, -(disc(u, v, size, x, y) + 0.03 * c.noise(n + 3, 18, 2)))
        if state == "split":
            at, width = values
            gap = np.abs(t - at + 0.12 * wander(n + 4, across * 0.5 + 0.5, 8)) * self.BEND - width
            whole = np.maximum(whole, -gap)
        c.shadow(whole, 0.035, 0.45, 0.08)
        ribs = 0.004 * np.cos(np.arcsin(np.clip(across, -1, 1)) * 11)
        height = np.float32(self.THICK) * np.sqrt(np.clip(1 - across * across, 0.02, 1)) + ribs
        tone = (1 + 0.03 * c.noise(n + 5, 14, 3))[..., None]
        c.body(whole, self.PASTA * tone, 0.02, height, gloss=0.22, shininess=20)
        c.body(np.maximum(whole, mouth), self.PASTA * np.float32(1.05), 0.015, gloss=0.1)
        c.paint(cover(np.maximum(whole, hollow), 2), self.PASTA * np.float32(0.28))
        return whole < -0.02


@register("visa", "macaroni1")
class MacaroniGrid(Elbows):
    """Four elbow macaroni in a regular arrangement."""

    angle = 2
    TABLE, PASTA = rgb(48, 52, 58), rgb(238, 190, 92)
    surface = ("colour_spot", "crack", "burn")

    def sample(self, rng: np.random.Generator) -> Params:
        places = np.array([(-0.46, -0.46), (0.46, -0.46), (-0.46, 0.46), (0.46, 0.46)])
        return self.pose(rng) | {
            "places": places + rng.normal(0, 0.014, (4, 2)),
            "turn": rng.normal(0, 0.06, 4),
            "bad": {},
        }


@register("visa", "macaroni2")
class MacaroniAnyPose(Elbows):
    """Four elbow macaroni in random poses."""

    angle = 2
    TABLE, PASTA = rgb(150, 60, 52), rgb(240, 214, 150)
    surface = ("colour_spot", "burn", "debris")

    def sample(self, rng: np.random.Generator) -> Params:
        places = np.array([(-0.46, -0.46), (0.46, -0.46), (-0.46, 0.46), (0.46, 0.46)])
        return self.pose(rng) | {
            "places": places + rng.normal(0, 0.018, (4, 2)),
            "turn": np.array([0.5, -1.1, -2.4, 2.0]) + rng.uniform(-0.22, 0.22, 4),
            "bad": {},
        }
