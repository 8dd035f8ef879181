"""A contact sheet of the synthetic objects, their defects and their masks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from iufbench.support.errors import InputError
from iufbench.support.files import write_bytes

from .render import GENERATOR_VERSION, get_scene, get_scenes, render_image

_TILE, _GAP, _MARGIN, _NAMES, _HEAD, _CAPTION = 144, 6, 24, 132, 104, 22
_PAPER, _INK, _GREY, _OUTLINE = (250, 250, 248), (32, 34, 38), (118, 122, 130), (255, 0, 200)
_TITLES = {"visa": "VisA", "mvtec": "MVTec AD"}
_NORMALS = 3


def preview(
    path: Path | str, dataset: str = "visa", objects: Sequence[str] | None = None, seed: int = 0
) -> None:
    """Write a contact sheet (PNG) of a synthetic data set's objects.

    Each object has a row: normal examples, then for each defect type a defective image and the same image
    with its mask outlined.

    Args:
        path: Output file.
        dataset: ``visa`` or ``mvtec``.
        objects: Names of objects; None for all.
        seed: Seed of the images.

    Raises:
        InputError: A name is unknown.
        RunError: ``path`` cannot be written.
    """
    names = list(get_scenes(dataset) if objects is None else objects)
    if not names:
        raise InputError("no objects to preview: give at least one")
    pairs = max(len(get_scene(dataset, name).defects) for name in names)
    left = _MARGIN + _NAMES
    first_pair = left + _NORMALS * (_TILE + _GAP) + 3 * _GAP
    width = first_pair + pairs * (2 * _TILE + 4 * _GAP) - 3 * _GAP + _MARGIN
    row_height = _TILE + _CAPTION + 2 * _GAP
    sheet = Image.new("RGB", (width, _HEAD + len(names) * row_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_head(draw, dataset, seed, left, first_pair)
    for row, name in enumerate(names):
        top = _HEAD + row * row_height
        draw.text((_MARGIN, top + _TILE / 2), name, _INK, _font(17), anchor="lm")
        for i in range(_NORMALS):
            image, _ = render_image(dataset, name, "train", i, seed)
            sheet.paste(_tile(image), (left + i * (_TILE + _GAP), top))
        for i, kind in enumerate(get_scene(dataset, name).defects):
            image, mask = render_image(dataset, name, kind, 0, seed)
            x = first_pair + i * (2 * _TILE + 4 * _GAP)
            sheet.paste(_tile(image), (x, top))
            sheet.paste(_tile(image, mask), (x + _TILE + 1, top))
            middle = x + _TILE + 0.5
            draw.text((middle, top + _TILE + 3), kind.replace("_", " "), _INK, _font(13), anchor="ma")
    data = io.BytesIO()
    sheet.save(data, format="PNG", optimize=True)
    write_bytes(path, data.getvalue())


def _write_head(draw: ImageDraw.ImageDraw, dataset: str, seed: int, left: int, first_pair: int) -> None:
    title = f"{_TITLES[dataset]} objects, synthetic"
    draw.text((_MARGIN, 18), title, _INK, _font(26))
    note = (
        "Synthetic data rendered by iufbench: stand-ins for the named objects, not photographs."
        f"  Generator version {GENERATOR_VERSION}, seed {seed}."
    )
    draw.text((_MARGIN, 52), note, _GREY, _font(14))
    draw.text((left, _HEAD - 6), "normal", _GREY, _font(13), anchor="ls")
    draw.text((first_pair, _HEAD - 6), "defective  |  with its mask outlined", _GREY, _font(13), anchor="ls")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _tile(image: np.ndarray, mask: np.ndarray | None = None) -> Image.Image:
    """The image at tile size; a mask is drawn as an outline just outside the defect."""
    tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
    if mask is None:
        return tile
    small = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(
        (_TILE, _TILE), Image.Resampling.BOX
    )
    inside = np.asarray(small) > 100
    pixels = np.array(tile)
    pixels[ndimage.binary_dilation(inside, iterations=3) & ~ndimage.binary_dilation(inside)] = _OUTLINE
    return Image.fromarray(pixels)
