"""Renders one image from its key: pose, defect, camera."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from iufbench.support.errors import InputError
from iufbench.support.fields import suggest

from . import surface
from .camera import shoot
from .primitives import Picture, Region, generator
from .scene import Scene, load_scenes

GENERATOR_VERSION = 1  # incremented whenever any image may change
NORMAL_KINDS = ("train", "good")
_TRIES = 8
_DIFFERENCE = 0.06  # of full scale: smaller differences between two renders are invisible
_SMALLEST = 350  # pixels, 0.5 % of the image
_CONTRAST = 0.16  # mean change below the mask


def get_scenes(dataset: str) -> Mapping[str, Scene]:
    """All scenes of a data set, in its order. Raises InputError for an unknown data set."""
    scenes = load_scenes()
    if dataset not in scenes:
        raise InputError(
            f"no synthetic data set '{dataset}': known are {' and '.join(scenes)}{suggest(dataset, scenes)}"
        )
    return scenes[dataset]


def get_scene(dataset: str, object_: str) -> Scene:
    """The scene of one object. Raises InputError for an unknown name, listing the known ones."""
    scenes = get_scenes(dataset)
    if object_ not in scenes:
        known = f"{', '.join(scenes)}{suggest(object_, scenes)}"
        raise InputError(f"no synthetic object '{object_}' in {dataset}: known are {known}")
    return scenes[object_]


def _changed_region(intact: Picture, broken: Picture) -> Region:
    """The region in which two renders differ visibly, without pinholes and stray pixels."""
    difference = np.abs(np.clip(broken, 0, 1) - np.clip(intact, 0, 1)).max(-1) > _DIFFERENCE
    mask = ndimage.binary_closing(np.pad(difference, 2), np.ones((3, 3), bool))[2:-2, 2:-2]
    for wanted, limit in ((False, 40), (True, 16)):  # fill pinholes, then drop specks
        parts, count = ndimage.label(mask if wanted else ~mask)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        small = sizes < limit
        small[0] = False
        mask = np.where(small[parts], not wanted, mask)
    return mask


def compose(
    dataset: str, object_: str, kind: str, index: int, seed: int = 0
) -> tuple[Picture, Picture | None, Region | None]:
    """Render a scene before the camera: intact image, defective image and mask (None for normal kinds).

    All choices come from generators keyed by (seed, dataset, object, kind, index). A defect that is too small
    or nearly invisible is drawn again; after eight attempts the clearest one is used.
    """
    scene = get_scene(dataset, object_)
    key = (seed, dataset, object_, kind, index)
    params = scene.sample(generator(*key, "scene"))
    intact, region = scene.render(params)
    if kind in NORMAL_KINDS:
        return intact, None, None
    if kind not in scene.defects:
        raise InputError(f"{object_} has no defect {kind!r}: it has {', '.join(scene.defects)}")
    rng = generator(*key, "defect")
    best: tuple[float, Picture, Region] | None = None
    for _ in range(_TRIES):
        if kind in scene.mutations:
            broken, _ = scene.render(scene.mutations[kind](params, rng))
            mask = _changed_region(intact, broken)
        else:
            broken, mask = surface.apply(scene.painter(kind), rng, intact, region)
        area = int(mask.sum())
        contrast = float(np.abs(broken - intact).max(-1)[mask].mean()) if area else 0.0
        clearness = min(area / _SMALLEST, 1.0) * min(contrast / _CONTRAST, 1.0)
        if best is None or clearness > best[0]:
            best = clearness, broken, mask
        if clearness >= 1:
            break
    assert best is not None
    return intact, best[1], best[2]


def render_image(
    dataset: str, object_: str, kind: str, index: int, seed: int = 0
) -> tuple[NDArray[np.uint8], Region | None]:
    """Render one image, uint8 [256, 256, 3], and its mask, bool [256, 256] (None for normal kinds).

    The result depends on the arguments only. Greyscale scenes have three equal channels.

    Args:
        dataset: ``visa`` or ``mvtec``.
        object_: Name of the object.
        kind: ``train``, ``good`` or one of the object's defects.
        index: Number of the image of this kind.
        seed: Seed of the data set.

    Raises:
        InputError: A name is unknown.
    """
    intact, broken, mask = compose(dataset, object_, kind, index, seed)
    camera = generator(seed, dataset, object_, kind, index, "camera")
    photo = shoot(camera, intact if broken is None else broken)
    if get_scene(dataset, object_).grey:
        photo = np.repeat(np.asarray(Image.fromarray(photo).convert("L"))[..., None], 3, axis=2)
    return photo, mask
