"""The survey of image headers: EXIF orientation, bit depth, colours, frames; detected, reported, used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from iufbench.data.decoding import Decoding
from iufbench.data.images import load_image, read_image
from iufbench.data.samples import DataSet, Sample
from iufbench.data.survey import surveyed
from iufbench.support.errors import InputError

RAMP = np.linspace(0, 1, 48).reshape(6, 8)


def dataset(root: Path, *paths: Path) -> DataSet:
    return DataSet("mine", root, ("nut",), tuple(Sample(p, "nut", "train", 0) for p in paths))


def wide(path: Path, largest: int) -> Path:
    Image.fromarray(np.round(RAMP * largest).astype(np.uint16)).save(path)
    return path


@pytest.mark.parametrize(
    ("largest", "bits"), [(200, 8), (1000, 10), (1024, 12), (4095, 12), (9000, 14), (16384, 16), (65535, 16)]
)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_images_are_scaled_by_the_depth_of_their_data_set(tmp_path, largest, bits, kind):
    bright, dark = wide(tmp_path / f"a.{kind}", largest), wide(tmp_path / f"b.{kind}", largest // 2)
    found = surveyed(dataset(tmp_path, bright, dark))
    assert found.decoding.bits == bits
    assert f"the largest value is {largest}, {bits} bits, so {2**bits - 1} becomes 255" in found.notes[0]
    for path, top in ((dark, largest // 2), (bright, largest)):
        exact = np.round(RAMP * top) * 255 / (2**bits - 1)
        pixels = read_image(path, found.decoding)
        assert np.abs(pixels[..., 0] - exact).max() <= 0.5 and (pixels == pixels[..., :1]).all()


def test_a_value_beyond_the_depth_is_refused(tmp_path):
    with pytest.raises(InputError, match="the value 5000, more than the 12 bits"):
        load_image(wide(tmp_path / "a.png", 5000), 8, Decoding(bits=12))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_images_are_turned_as_a_viewer_shows_them(tmp_path, orientation, kind):
    path = tmp_path / f"a.{kind}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        stored = pixels if kind == "tif" else np.asarray(image)  # PIL turns TIFF files itself
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(path, Decoding(upright=False)), stored)
    found = surveyed(dataset(tmp_path, path)).notes
    assert len(found) == (orientation != 1) and all("EXIF orientation, which is applied" in n for n in found)


@pytest.mark.parametrize(("factor", "bits"), [(257, 16), (16, 12), (1, 8)])
def test_16_bit_colours_that_use_few_bits_are_refused(tmp_path, factor, bits):
    """Pillow keeps the high bytes: of 12 bits, 4 would be left."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels * np.uint16(factor), photometric="rgb")
    found = surveyed(dataset(tmp_path, tmp_path / "a.tif"))
    assert found.decoding.bits == bits
    if bits == 16:
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif", found.decoding), pixels)
        assert "have 16-bit colours, of which the high bytes are used" in found.notes[0]
        return
    with pytest.raises(InputError, match=rf"a\.tif has 16-bit colours, .* only {bits} of the bits"):
        read_image(tmp_path / "a.tif", found.decoding)


@pytest.mark.parametrize(
    ("pixels", "more", "words"),
    [
        (np.zeros((3, 6, 8), np.uint16), {"photometric": "rgb", "planarconfig": "separate"}, "in separate"),
        (np.zeros((6, 8), np.int8), {}, "signed values"),
    ],
)
def test_what_pillow_reads_wrongly_is_refused(tmp_path, pixels, more, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **more)
    with pytest.raises(InputError, match=rf"a\.tif is a TIFF of .*{words}"):
        read_image(tmp_path / "a.tif")


def test_transparent_colours_and_colour_profiles_are_noted(tmp_path):
    image = Image.new("P", (8, 6))
    image.save(tmp_path / "a.png", transparency=0)
    for name, space in (("b.png", "sRGB"), ("c.png", "XYZ")):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
        image.save(tmp_path / name, icc_profile=profile)
    assert surveyed(dataset(tmp_path, *sorted(tmp_path.iterdir()))).notes == (
        "1 of 3 images, such as a.png, have an alpha channel, which is dropped",
        "1 of 3 images, such as c.png, have a colour profile other than sRGB, which is not applied",
    )


def test_what_is_unusual_is_noted_once(tmp_path):
    plain, turned, cmyk, frames = (tmp_path / name for name in ("a.png", "b.jpg", "c.jpg", "d.tif"))
    Image.new("RGB", (8, 6)).save(plain)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(turned, exif=exif)
    Image.new("CMYK", (8, 6)).save(cmyk)
    Image.new("L", (8, 6)).save(frames, save_all=True, append_images=[Image.new("L", (8, 6))])
    found = surveyed(dataset(tmp_path, plain, turned, cmyk, frames))
    assert found.notes == (
        "1 of 4 images, such as b.jpg, have EXIF orientation, which is applied",
        "1 of 4 images, such as c.jpg, have CMYK colours, converted without colour profile",
        "1 of 4 images, such as d.tif, have several frames; the first is used",
    )
    assert found.decoding == Decoding()
    as_stored = surveyed(replace(found, notes=(), decoding=Decoding(upright=False)))
    assert "ignored, as the data set's card says" in as_stored.notes[0]
    assert surveyed(dataset(tmp_path, plain)).notes == ()


def test_what_cannot_be_read_is_left_to_who_reads_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert surveyed(dataset(tmp_path, tmp_path / "a.png")).notes == ()


def test_large_images_are_read_when_asked_for(tmp_path):
    path = tmp_path / "scan.png"
    Image.new("L", (400, 200)).save(path)
    with pytest.raises(InputError, match=r"400x200 pixels, the limit is 1,000: .*--max-pixels 80000"):
        read_image(path, Decoding(max_pixels=1000))
    assert read_image(path, Decoding(max_pixels=80000)).shape == (200, 400, 3)
