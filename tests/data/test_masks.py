"""Masks as written by annotation tools: each is read as a viewer shows it, rejected, or reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from iufbench.data.masks import Doubt, load_masks, read_mask
from iufbench.data.samples import Sample
from iufbench.support.errors import InputError

DENT = np.zeros((24, 32), dtype=bool)
DENT[5:13, 8:20] = True
WHITE = DENT.astype(np.uint8) * 255


@pytest.fixture
def sample(tmp_path: Path):
    """Makes a defective sample of an image of 32x24 pixels with the given mask."""
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(tmp_path / "image.png")

    def made(mask: Image.Image | np.ndarray, number: int = 0, **options) -> Sample:
        path = tmp_path / f"{number}_mask.png"
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path, **options)
        return Sample(tmp_path / "image.png", "nut", "test", 1, "dent", path)

    return made


def palette(index: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.frombytes("P", index.shape[::-1], index.astype(np.uint8).tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def rgba(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([np.broadcast_to(colour, (24, 32, 3)), alpha]).astype(np.uint8)


BLACK, PURE, RED, GREY = (0, 0, 0), (255, 255, 255), (200, 0, 0), (40, 40, 40)
IN_COLOUR = np.where(DENT[..., None], RED, PURE)
AS_DRAWN = {
    "white on black": WHITE,
    "two levels": Image.fromarray(DENT),
    "a class": DENT.astype(np.uint8) * 3,
    "16 bits": WHITE.astype(np.uint16) * 257,
    "palette, black first": palette(DENT, BLACK, PURE),
    "palette, white first": palette(~DENT, PURE, BLACK),
    "palette, red first": palette(~DENT, RED, BLACK),
    "palette in the middle": palette(np.where(DENT, 7, 9), *[GREY] * 7, PURE, GREY, BLACK),
    "palette all black": palette(DENT * 2, BLACK, BLACK, BLACK),
    "palette with two blacks": palette(np.where(DENT, 2, np.arange(32) % 2), BLACK, BLACK, PURE),
    "palette of classes": palette(DENT * 2, BLACK, RED, PURE),
    "alpha over black": rgba(np.zeros(3), WHITE),
    "alpha over white": rgba(np.full(3, 255), WHITE),
    "alpha with grey": np.dstack([np.full_like(WHITE, 90), WHITE]),
    "red on transparent white": rgba(IN_COLOUR, WHITE),
    "black on transparent white": rgba(np.where(DENT[..., None], 0, 255), WHITE),
    "white on opaque black": rgba(np.where(DENT[..., None], 255, 0), np.full_like(WHITE, 255)),
}


@pytest.mark.parametrize("how", AS_DRAWN)
def test_a_mask_is_read_as_it_was_drawn(sample, how):
    np.testing.assert_array_equal(read_mask(sample(AS_DRAWN[how])), DENT)


def test_a_transparent_palette_colour_is_the_ground(sample):
    made = sample(palette(DENT, PURE, BLACK), transparency=0)
    np.testing.assert_array_equal(read_mask(made), DENT)


TRANSPARENT = {
    "black": (Image.fromarray(WHITE), 0),
    "white around red": (Image.fromarray(np.where(DENT[..., None], RED, PURE).astype(np.uint8)), PURE),
    "white around black": (Image.fromarray(255 - WHITE), 255),
}


@pytest.mark.parametrize("ground", TRANSPARENT)
def test_a_transparent_colour_is_the_ground(sample, ground):
    image, transparent = TRANSPARENT[ground]
    np.testing.assert_array_equal(read_mask(sample(image, transparency=transparent)), DENT)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("pages", "have several frames, of which only the first is read"), ("colours", "have 16-bit colours")],
)
def test_what_is_not_read_of_a_mask_is_reported(sample, tmp_path, kind, words):
    made, path = sample(WHITE), tmp_path / "mask.tif"
    pixels = (
        np.stack([WHITE, WHITE]) if kind == "pages" else np.repeat(WHITE[..., None], 3, 2) * np.uint16(257)
    )
    tifffile.imwrite(path, pixels, photometric="minisblack" if kind == "pages" else "rgb")
    masks, doubts = load_masks([replace(made, mask=path)], 24)
    (doubt,) = doubts
    assert masks.any() and words in doubt.message


def inverted(k: int) -> np.ndarray:
    return 255 - np.roll(WHITE, k, axis=1)


def blurred(k: int) -> np.ndarray:
    small = Image.fromarray(np.roll(WHITE, k, axis=1)).resize((16, 12), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((32, 24), Image.Resampling.BILINEAR))


def antialiased(k: int) -> np.ndarray:
    """A single intermediate value: the edge of an antialiased polygon."""
    edge = np.zeros_like(DENT)
    edge[4:14, 7:21] = True
    return np.where(DENT, 255, np.where(edge, 128, 0)).astype(np.uint8)


def from_jpeg(k: int) -> np.ndarray:
    noise = np.random.default_rng(k).integers(0, 9, WHITE.shape)
    return np.clip(WHITE.astype(int) - noise * DENT + noise * ~DENT, 0, 255).astype(np.uint8)


def enlarged(k: int) -> Image.Image:
    """Twice the size, as for an image that was enlarged: lines of intermediate values, two pixels wide."""
    return Image.fromarray(WHITE[::2, ::2]).resize((32, 24), Image.Resampling.BILINEAR)


def of_a_large_defect(k: int) -> np.ndarray:
    mask = np.full_like(WHITE, 255)
    mask[2:-2, 3:-3] = 0
    return mask


DOUBTFUL = {
    "inverted": (inverted, "4 of 4 masks, such as 0_mask.png, mark most of their image"),
    "inverted palette": (
        lambda k: palette(~DENT, BLACK, PURE),
        "4 of 4 masks, such as 0_mask.png, mark most of",
    ),
    "inverted alpha": (lambda k: rgba(np.zeros(3), 255 - WHITE), "mark most of"),
    "all white": (lambda k: np.full_like(WHITE, 255), "mark most of"),
    "blurred": (blurred, "hold intermediate values, as if smoothed or compressed"),
    "antialiased": (antialiased, "as if smoothed or compressed (5.7 % of their pixels)"),
    "JPEG saved as PNG": (from_jpeg, "as if smoothed or compressed"),
    "enlarged": (enlarged, "as if smoothed or compressed"),
    "inverted, of a large defect": (
        of_a_large_defect,
        "most of their image or of its border: are they inverted",
    ),
    "palette without black": (lambda k: palette(DENT, GREY, RED), "have a palette without black"),
    "colours and alpha that differ": (
        lambda k: rgba(np.where(np.roll(DENT, 3, 1)[..., None], 255, 0), WHITE),
        "have colours and an alpha channel that differ",
    ),
}


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_masks_that_are_likely_wrong_are_doubted_once(sample, kind):
    make, words = DOUBTFUL[kind]
    samples = [sample(make(k), k) for k in range(4)]
    masks, doubts = load_masks(samples, 16)
    assert masks.shape == (4, 16, 16) and masks.dtype == bool
    found = [doubt for doubt in doubts if words in doubt.message]
    assert [(doubt.object, doubt.sample) for doubt in found] == [("nut", samples[0])], doubts


def test_good_masks_are_not_doubted(sample):
    """Occasional large defects, classes, thin scratches and defects at the border are all plausible."""
    large = np.full_like(WHITE, 255)
    large[:3] = large[:, :3] = large[-3:] = large[:, -3:] = 0
    classes = WHITE // 255
    classes[6:12, 9:15] = 2
    scratch = np.zeros_like(WHITE)
    scratch[np.arange(24), np.arange(24)] = 4
    scratch[3, 3:20] = 2
    values = WHITE.copy()
    values[6:12, 9:15] = 254  # MVTec LOCO numbers defects from 255 down
    bar = np.zeros_like(WHITE)
    bar[:, 10:16] = 255
    samples = [sample(mask, k) for k, mask in enumerate([large, classes, scratch, values, bar])]
    assert load_masks(samples, 16)[1] == []


def test_one_inverted_mask_among_others_is_found(sample):
    samples = [sample(inverted(0) if k == 2 else np.roll(WHITE, k, 1), k) for k in range(5)]
    (doubt,) = load_masks(samples, 16)[1]
    assert (
        isinstance(doubt, Doubt)
        and doubt.sample == samples[2]
        and "1 of 5 masks, such as 2_" in doubt.message
    )


def rotated(path: Path, orientation: int, size: tuple[int, int]) -> Path:
    """An image with an EXIF rotation, of ``size`` (width, height) as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (9, 80, 200)).save(path, exif=exif)
    return path


def test_a_mask_fits_the_image_as_a_viewer_shows_it(tmp_path):
    image = rotated(tmp_path / "image.jpg", 6, (24, 32))
    Image.fromarray(WHITE).save(tmp_path / "mask.png")
    sample = Sample(image, "nut", "test", 1, "dent", tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(sample), DENT)
    assert load_masks([sample], 8)[1] == []  # its size tells that it was drawn on the turned picture
    Image.fromarray(WHITE.T.copy()).save(tmp_path / "mask.png")
    with pytest.raises(
        InputError, match=r"mask.png is 24x32 pixels, .* is 32x24 after applying its EXIF .* 'exif: ignore'"
    ):
        read_mask(sample)
    rotated(image, 3, (32, 24))
    Image.fromarray(WHITE).save(tmp_path / "mask.png")
    (doubt,) = load_masks([sample], 8)[1]
    assert "with an EXIF orientation" in doubt.message


def test_a_mask_turned_by_its_own_exif_is_turned(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "image.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(WHITE).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "mask.png", exif=exif)
    sample = Sample(tmp_path / "image.png", "nut", "test", 1, "dent", tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(sample), DENT)


@pytest.mark.parametrize(
    ("shape", "words"), [((32, 24), "rotated by 90 degrees"), ((24, 31), "image's size")]
)
def test_masks_of_another_size_are_refused(sample, shape, words):
    with pytest.raises(InputError, match=words):
        read_mask(sample(np.full(shape, 255, np.uint8)))
