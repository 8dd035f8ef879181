"""What a scene is, the canvas it draws on, and the registry of scenes per data set.

A scene is registered under the name of the real object that it represents. A new one is a class in a module
whose name starts with ``scenes_``:

    @register("visa", "candle")
    class Candle(Scene):
        mutations: ClassVar = {"missing_wick": lambda p, rng: changed(p, wick=False)}  # structural
        surface = ("scratch", "dirt", "stain")  # names in surface.PAINTERS

        def sample(self, rng): return self.pose(rng) | {"wick": True}
        def render(self, p):
            canvas = Canvas.posed(p, rgb(200, 200, 200))
            ...
            return canvas.image, region
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from . import primitives as prim
from .primitives import PIXEL, SIZE, Map, Picture, Region
from .surface import PAINTERS, Painter

Params = dict[str, Any]
Mutation = Callable[[Params, np.random.Generator], Params]


class Canvas:
    """A window of an image being rendered, with its own coordinates.

    ``u``, ``v`` are scene coordinates around the canvas's origin. ``at`` returns a small window with the
    origin moved (and rotated): the cost of drawing an item there depends on the item's area, not on the
    image's.
    """

    def __init__(
        self,
        image: Picture,
        origin: tuple[float, float],
        angle: float,
        zoom: float,
        window: tuple[slice, slice],
    ):
        self._whole, self._origin, self.angle, self._zoom = image, origin, angle, zoom
        self.window = window
        self.image = image[window]

    @classmethod
    def posed(cls, params: Params, background: ArrayLike) -> Canvas:
        """A whole image filled with a colour [3] or image [256, 256, 3], in the pose of ``params``."""
        image = np.empty((SIZE, SIZE, 3), np.float32)
        image[:] = np.asarray(background, np.float32)
        origin = (params["x"], params["y"])
        return cls(image, origin, params["angle"], params["zoom"], (slice(0, SIZE), slice(0, SIZE)))

    @cached_property
    def _coordinates(self) -> tuple[Map, Map]:
        x = (prim.X[self.window] - np.float32(self._origin[0])) / np.float32(self._zoom)
        y = (prim.Y[self.window] - np.float32(self._origin[1])) / np.float32(self._zoom)
        return prim.rotate(x, y, self.angle)

    @property
    def u(self) -> Map:
        return self._coordinates[0]

    @property
    def v(self) -> Map:
        return self._coordinates[1]

    def at(self, x: float, y: float, reach: float | tuple[float, float], angle: float = 0.0) -> Canvas:
        """The window around (x, y) that contains a disc of radius ``reach``; its origin is there, rotated by
        ``angle``.

        A pair gives the half sizes of a rectangle along this canvas's axes. Leave room for the shadow:
        anything drawn outside the window is lost.
        """
        c, s = math.cos(self.angle), math.sin(self.angle)
        ox = self._origin[0] + self._zoom * (x * c - y * s)
        oy = self._origin[1] + self._zoom * (x * s + y * c)
        half_x, half_y = reach if isinstance(reach, tuple) else (reach, reach)
        if isinstance(reach, tuple):  # bounding box of the rotated rectangle
            half_x, half_y = abs(c) * half_x + abs(s) * half_y, abs(s) * half_x + abs(c) * half_y
        window = []
        for centre, half in ((oy, half_y), (ox, half_x)):
            low = math.floor((centre - half * self._zoom + 1) / PIXEL) - 1
            high = math.ceil((centre + half * self._zoom + 1) / PIXEL) + 1
            low = min(max(low, 0), SIZE - 4)
            window.append(slice(low, max(min(high, SIZE), low + 4)))
        return Canvas(self._whole, (ox, oy), self.angle + angle, self._zoom, (window[0], window[1]))

    def noise(
        self,
        seed: int,
        cells: int = 4,
        octaves: int = 4,
        gain: float = 0.55,
        aspect: tuple[int, int] = (1, 1),
    ) -> Map:
        """``primitives.noise`` in this window (fixed in the image)."""
        return prim.noise(seed, cells, octaves, gain, aspect)[self.window]

    def paint(self, coverage: Map, colour: ArrayLike) -> None:
        prim.paint(self.image, coverage, colour)

    def shade(self, amount: Map) -> None:
        prim.shade(self.image, amount)

    def shadow(self, distance: Map, offset: float = 0.03, amount: float = 0.35, soft: float = 0.07) -> None:
        """Drop shadow of a shape to the lower right, away from the light."""
        n = max(1, round(offset / PIXEL))
        moved = distance.copy()
        moved[n:, n:] = distance[:-n, :-n]
        self.shade(np.float32(-amount) * np.clip(0.5 - moved / np.float32(soft), 0, 1))

    def body(
        self,
        distance: Map,
        colour: ArrayLike,
        round_edge: float,
        height: Map | None = None,
        gloss: float = 0.2,
        shininess: float = 24.0,
    ) -> None:
        """Paint a shaded solid with a rounded edge; ``height`` is added to the edge's own relief."""
        surface = prim.dome(distance, round_edge)
        diffuse, glint = prim.relief(surface if height is None else surface + height, shininess)
        lit = np.asarray(colour, np.float32) * diffuse[..., None] + np.float32(gloss) * glint[..., None]
        self.paint(prim.cover(distance), lit)


def changed(params: Params, **values: Any) -> Params:
    """A copy of ``params`` with some values replaced: the result of a mutation."""
    return {**params, **values}


class Scene(ABC):
    """One object: ``sample`` draws parameters, ``render`` renders them.

    ``mutations`` are the structural defects (name -> function from parameters to changed ones; the mask is
    where the two renders differ), ``surface`` names painters of ``surface.PAINTERS`` (mask = coverage), and
    ``painters`` holds the scene's own surface defects. Their order is that of the defective images and of
    VisA's numbered classes.
    """

    angle: ClassVar[float] = 3.0  # pose: degrees to either side; 180 = any
    shift: ClassVar[float] = 0.02  # scene units
    zoom: ClassVar[float] = 0.012
    mutations: ClassVar[Mapping[str, Mutation]] = {}
    surface: ClassVar[tuple[str, ...]] = ()
    painters: ClassVar[Mapping[str, Painter]] = {}
    grey: ClassVar[bool] = False  # photographed in grey-scale

    def pose(self, rng: np.random.Generator) -> Params:
        """Pose parameters (``angle`` radians, ``x``, ``y``, ``zoom``) and ``n``, a seed for noise fields."""
        return {
            "angle": math.radians(rng.uniform(-self.angle, self.angle)),
            "x": rng.uniform(-self.shift, self.shift),
            "y": rng.uniform(-self.shift, self.shift),
            "zoom": 1 + rng.uniform(-self.zoom, self.zoom),
            "n": int(rng.integers(1 << 30)),
        }

    def sample(self, rng: np.random.Generator) -> Params:
        return self.pose(rng)

    @abstractmethod
    def render(self, params: Params) -> tuple[Picture, Region]:
        """The image [256, 256, 3] (nominally 0..1) and the region in which surface defects may be placed."""

    def painter(self, defect: str) -> Painter:
        """The painter of a surface defect: the scene's own, or the common one of that name."""
        return self.painters[defect] if defect in self.painters else PAINTERS[defect]

    @property
    def defects(self) -> tuple[str, ...]:
        return (*self.mutations, *self.surface, *self.painters)


VISA: dict[str, Scene] = {}
MVTEC: dict[str, Scene] = {}
REGISTRY: dict[str, dict[str, Scene]] = {"visa": VISA, "mvtec": MVTEC}

S = TypeVar("S", bound=type[Scene])


def register(dataset: str, name: str) -> Callable[[S], S]:
    """Class decorator: register a scene for object ``name`` of ``dataset``."""

    def add(scene: S) -> S:
        if name in REGISTRY[dataset]:
            raise ValueError(f"two scenes for {dataset}/{name}")
        REGISTRY[dataset][name] = scene()
        return scene

    return add


@lru_cache(maxsize=1)
def load_scenes() -> Mapping[str, Mapping[str, Scene]]:
    """All scenes, data set -> object -> scene, objects in alphabetical order (the data sets' own)."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("scenes_"):
            importlib.import_module(f"{__package__}.{module.name}")
    return {dataset: dict(sorted(scenes.items())) for dataset, scenes in REGISTRY.items()}
