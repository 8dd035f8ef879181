"""Decoding and preprocessing, against stored arrays and by hand."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iufbench.data.images import load_image, read_image
from iufbench.data.masks import load_mask, read_mask
from iufbench.data.samples import Sample
from iufbench.support.errors import InputError

STORED = Path(__file__).parent / "10_preprocess.npz"


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(STORED) as arrays:
        return dict(arrays)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def defective(image: Path, mask: Path | None) -> Sample:
    return Sample(image, "nut", "test", 1, "dent", mask)


def test_image_equals_the_stored_preprocessing(tmp_path: Path, stored: dict[str, np.ndarray]):
    loaded = load_image(save(tmp_path / "a.png", stored["in/rgb"]), 56)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, stored["out/rgb_u8"])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((loaded / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(normalised, stored["out/image"], atol=1e-6)


def test_mask_equals_the_stored_preprocessing(tmp_path: Path, stored: dict[str, np.ndarray]):
    image = save(tmp_path / "a.png", stored["in/rgb"])
    mask = load_mask(defective(image, save(tmp_path / "m.png", stored["in/mask"])), 56)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, stored["out/mask"][0] > 0)


GREY = (np.arange(48, dtype=np.uint8) * 5).reshape(6, 8)
AS_RGB = np.repeat(GREY[:, :, None], 3, axis=2)
ALPHA = np.concatenate([AS_RGB, np.full((6, 8, 1), 7, np.uint8)], axis=2)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("grey.png", Image.fromarray(GREY)),
        ("palette.png", Image.fromarray(GREY).convert("P")),
        ("rgb.bmp", Image.fromarray(AS_RGB)),
        ("alpha.png", Image.fromarray(ALPHA)),
        ("sixteen.png", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("sixteen.tif", Image.fromarray(GREY.astype(np.uint16) * 257)),
        ("wide.tif", Image.fromarray(GREY.astype(np.int32) * 257)),
    ],
)
def test_every_mode_becomes_the_same_rgb(tmp_path: Path, name: str, image: Image.Image):
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), AS_RGB)
    resized = Image.fromarray(AS_RGB).resize((5, 5), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(load_image(tmp_path / name, 5), resized)


def test_bilevel_image_is_black_and_white(tmp_path: Path):
    save(tmp_path / "a.png", GREY > 100)
    assert set(np.unique(read_image(tmp_path / "a.png"))) == {0, 255}


@pytest.mark.filterwarnings("ignore")  # PIL warns of odd headers before it gives up
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_image_cut_anywhere_is_named_or_whole(tmp_path: Path, kind: str):
    """A truncated file raises nothing but InputError, and is never accepted with missing pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    content = stream.getvalue()
    path = tmp_path / "cut.img"
    path.write_bytes(content)
    whole, refused = read_image(path), 0
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(read_image(path), whole)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused >= 0.9 * len(range(0, len(content), 7))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_corrupted_bytes_raise_nothing_but_input_errors(tmp_path: Path, kind: str):
    rng = np.random.default_rng(1)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, kind)
    content = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    path = tmp_path / "corrupted.img"
    for _ in range(300):
        damaged = content.copy()
        # The headers are where damage does more than change pixels.
        places = rng.integers(0, min(len(content), 200), size=4)
        damaged[places] = rng.integers(0, 256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path)
        except InputError as error:
            assert str(path) in str(error)


def test_files_that_are_no_images(tmp_path: Path):
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match=r"a\.png does not exist"):
        load_image(path, 8)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png is empty \(0 bytes\)"):
        load_image(path, 8)
    path.write_text("<html>404</html>")
    with pytest.raises(
        InputError, match=r"a\.png cannot be read as an image \(not an image in a supported format"
    ):
        load_image(path, 8)
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_image(tmp_path, 8)


@pytest.mark.parametrize("values", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70000, np.int32)])
def test_pixels_beyond_16_bits_are_refused(tmp_path: Path, values: np.ndarray):
    with pytest.raises(InputError, match=r"a\.tif .* convert it to 8 or 16 bits"):
        load_image(save(tmp_path / "a.tif", values), 8)


@pytest.mark.parametrize(("mode", "shown"), [("I;16", None), ("L", 205)])
def test_tiffs_in_which_zero_is_white(tmp_path: Path, mode: str, shown: int | None):
    """Pillow shows them as viewers do, but for 16 bits, which are refused for images and masks alike."""
    dtype = np.uint16 if mode == "I;16" else np.uint8
    path = save(tmp_path / "a.tif", np.full((4, 4), 50, dtype))
    content = path.read_bytes()
    black_is_zero = struct.pack("<HHIHH", 262, 3, 1, 1, 0)  # the entry of the tag: one SHORT, 1
    assert content.count(black_is_zero) == 1
    path.write_bytes(content.replace(black_is_zero, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    if shown is not None:
        assert (load_image(path, 4) == shown).all()
        return
    image = save(tmp_path / "image.png", AS_RGB)
    for read in (lambda: load_image(path, 4), lambda: read_mask(defective(image, path))):
        with pytest.raises(InputError, match=r"a\.tif is a TIFF .* in which 0 is white"):
            read()


def test_mask_values_above_zero_are_defect(tmp_path: Path):
    image = save(tmp_path / "a.png", AS_RGB)
    classes = np.zeros((6, 8), dtype=np.uint8)
    classes[0, :5] = [1, 2, 5, 9, 255]
    palette = Image.fromarray(classes).convert("P")
    palette.putpalette(bytes(768))  # all black on screen, as VisA's masks nearly are
    palette.save(tmp_path / "palette.png")
    rgb = np.zeros((6, 8, 4), dtype=np.uint8)
    rgb[..., 1], rgb[..., 3] = classes, 255
    masks = [
        save(tmp_path / "grey.png", classes),
        tmp_path / "palette.png",
        save(tmp_path / "bilevel.png", classes > 0),
        save(tmp_path / "rgb.png", rgb[..., :3]),
        save(tmp_path / "rgba.png", rgb),
        save(tmp_path / "sixteen.png", classes.astype(np.uint16)),
    ]
    for mask in masks:
        np.testing.assert_array_equal(read_mask(defective(image, mask)), classes > 0, err_msg=mask.name)


def test_tiny_defect_may_vanish_in_the_small_mask(tmp_path: Path):
    image = save(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    dot = np.zeros((64, 64), np.uint8)
    dot[0, 0] = 255
    sample = defective(image, save(tmp_path / "m.png", dot))
    assert read_mask(sample).sum() == 1
    assert not load_mask(sample, 8).any()


def test_mask_of_a_normal_image_is_empty(tmp_path: Path):
    mask = load_mask(Sample(tmp_path / "not needed.png", "nut", "test", 0), 16)
    assert mask.shape == (16, 16) and mask.dtype == bool and not mask.any()


def test_masks_that_are_wrong(tmp_path: Path):
    image = save(tmp_path / "a.png", AS_RGB)
    with pytest.raises(InputError, match=r"a\.png has no mask"):
        load_mask(defective(image, None), 8)
    with pytest.raises(InputError, match=r"m\.png is 6x8 pixels, its image .*a\.png is 8x6"):
        load_mask(defective(image, save(tmp_path / "m.png", GREY.T.copy())), 8)
    with pytest.raises(InputError, match=r"empty\.png marks no pixel"):
        load_mask(defective(image, save(tmp_path / "empty.png", np.zeros((6, 8), np.uint8))), 8)
    with pytest.raises(InputError, match=r"m\.jpg is a JPEG"):
        load_mask(defective(image, save(tmp_path / "m.jpg", GREY)), 8)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        load_mask(defective(image, tmp_path / "broken.png"), 8)
