"""Image files in, arrays out: decoding and the preprocessing of IUF (ECCV 2024).

Images: 8-bit RGB, resized to a square with PIL's antialiased bilinear filter, the aspect ratio not
kept, no augmentation, no EXIF rotation (masks are drawn on the pixels as stored). Grey and palette
images become RGB, an alpha channel is dropped, 16-bit grey is scaled to 8 bits (65535 -> 255), of
16-bit RGB PIL keeps the high bytes, CMYK is converted without colour profile, of several frames the
first counts. What a file is its content says, not its name: PNG, JPEG, BMP or TIFF, of at most
``MAX_PIXELS``. (PIL would open many more kinds, some with the help of other programs.)

Masks: any value above 0 is defect (MVTec AD writes 255, VisA the defect's class 1..k), palette
masks by their index, resized with nearest neighbour.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iufbench.data.samples import Sample
from iufbench.support.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
MAX_PIXELS = (
    100_000_000  # an image of 300 MB in memory; the largest of the official data sets has 1.5 million
)

# What PIL's decoders raise for damaged files, by format and kind of damage.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def load_image(path: Path, size: int) -> NDArray[np.uint8]:
    """An image as uint8 [size, size, 3] RGB, 0..255. InputError naming the file if it cannot be read."""
    image = Image.fromarray(read_image(path))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def load_mask(sample: Sample, size: int) -> NDArray[np.bool_]:
    """A sample's defect mask, bool [size, size]; all False for a normal image and where no defect shows.

    Small defects can vanish when resized, so an empty result for a defective image is allowed; an
    empty mask file is not (InputError, as for everything that ``read_mask`` refuses).
    """
    if sample.label == 0 or sample.unseen:
        return np.zeros((size, size), dtype=bool)
    mask = Image.fromarray(read_mask(sample).astype(np.uint8))
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST)) > 0


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image at its own size, uint8 [height, width, 3] RGB. InputError naming the file."""
    image = _decode(path)
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), path)
    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels: convert it to 8 or 16 bits")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transparency in palettes, which is dropped on purpose
            return np.asarray(image.convert("RGB"))
    except ValueError as error:
        raise InputError(f"{path} has colours of the kind {image.mode}: convert it to RGB") from error


def read_mask(sample: Sample) -> NDArray[np.bool_]:
    """The mask of a defective sample at its own size, bool [height, width]: the union of its files.

    Raises InputError for a sample without mask, a mask that cannot be read, has another size than
    its image, marks no pixel, or is a JPEG (whose compression smears values above 0 everywhere).
    """
    if sample.mask is None:
        raise InputError(f"defective image {sample.image} has no mask")
    width_height = _header_size(sample.image)
    marked = _marked(sample, sample.mask, width_height)
    for file in sample.more_masks:
        marked |= _marked(sample, file, width_height)
    return marked


def _marked(sample: Sample, file: Path, width_height: tuple[int, int]) -> NDArray[np.bool_]:
    mask = _decode(file)
    if mask.format == "JPEG":
        raise InputError(f"mask {file} is a JPEG, which cannot keep exact values: use PNG")
    if mask.mode in ("CMYK", "LAB", "HSV", "YCbCr"):  # where black is not zero
        raise InputError(f"mask {file} has colours of the kind {mask.mode}: convert it to grey")
    if mask.size != width_height:
        raise InputError(
            f"mask {file} is {mask.size[0]}x{mask.size[1]} pixels, "
            f"its image {sample.image} is {width_height[0]}x{width_height[1]}"
        )
    if mask.mode in ("LA", "RGBA", "PA"):
        mask = mask.convert("L" if mask.mode == "LA" else "RGB")
    channels = np.asarray(mask).reshape(mask.height, mask.width, -1)
    marked: NDArray[np.bool_] = np.any(channels > 0, axis=2)
    if not marked.any():
        raise InputError(f"mask {file} marks no pixel, but its image is listed as defective")
    return marked


def has_many_values(mask: Path, most: int) -> bool:
    """Whether a mask file has more than ``most`` different values (colours, for one in colour)."""
    image = _decode(mask)
    if image.mode.startswith(("I", "F")):
        return len(np.unique(np.asarray(image))) > most
    return image.getcolors(most) is None


def _decode(path: Path) -> Image.Image:
    try:
        with _opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{path} has {image.width}x{image.height} pixels, at most {MAX_PIXELS:,} are read"
                )
            image.load()
            return image
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _header_size(path: Path) -> tuple[int, int]:
    try:
        with _opened(path) as image:
            return image.size
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _opened(path: Path) -> Image.Image:
    """An image of which only the header has been read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd headers and of sizes that are judged here
        return Image.open(path, formats=FORMATS)


def _unreadable(path: Path, error: BaseException) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return InputError(f"{path} cannot be read: permission denied")
    if path.is_file() and path.stat().st_size == 0:
        return InputError(f"{path} is empty (0 bytes): get the file again")
    if isinstance(error, Image.DecompressionBombError):
        return InputError(f"{path} has too many pixels, at most {MAX_PIXELS:,} are read")
    unknown = isinstance(error, Image.UnidentifiedImageError)
    reason = "not an image of a kind that is understood" if unknown else " ".join(str(error).split())
    return InputError(f"{path} cannot be read as an image ({reason}): get the file again")


def _from_16_bit(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise InputError(f"{path} has pixel values outside of 16 bits: convert it to 8 or 16 bits")
    grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
