"""Image decoding and the preprocessing of IUF (ECCV 2024).

Images are 8-bit RGB, resized to a square with PIL's antialiased bilinear filter without keeping the aspect
ratio; there is no augmentation. The EXIF orientation is applied unless the data set's card has
``exif: ignore``. Grey and palette images become RGB, an alpha channel is dropped, 16-bit grey is scaled by
the data set's bit depth (``Decoding.bits``), colour profiles are not applied, and only the first of several
frames is used. PIL keeps the high bytes of 16-bit colours, so these must use the full range.
The format (PNG, JPEG, BMP or TIFF) is detected from the content; the limit is ``Decoding.max_pixels``.
(PIL supports many more formats, some through external programs.) Masks are in ``masks.py``.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iufbench.data.decoding import AS_SHOWN, Decoding
from iufbench.support.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")  # modes of PIL
ORIENTATION = 0x0112  # the EXIF tag
# Tags of TIFF, and values that Pillow reads wrongly: 0 is white in 16 bits; signed; a plane per 16-bit colour
BITS, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 262, 284, 339
WHITE_IS_ZERO, SIGNED, SEPARATE = 0, 2, 2
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Exceptions that PIL's decoders raise for corrupted files, depending on format and damage.
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
)


def load_image(path: Path, size: int, how: Decoding = AS_SHOWN) -> NDArray[np.uint8]:
    """Load an image as uint8 [size, size, 3] RGB. Raises InputError naming the file if it cannot be read."""
    return np.asarray(_rgb(path, how).resize((size, size), Image.Resampling.BILINEAR))


def read_image(path: Path, how: Decoding = AS_SHOWN) -> NDArray[np.uint8]:
    """Read an image at its original size, uint8 [height, width, 3] RGB. Raises InputError naming the file."""
    return np.asarray(_rgb(path, how))


def _rgb(path: Path, how: Decoding) -> Image.Image:
    image = decode(path, how)
    if image.mode.startswith("I"):
        return Image.fromarray(_from_16_bit(np.asarray(image), path, how.bits))
    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels: convert it to 8 or 16 bits")
    if how.bits < 16 and read_header(path).deep:
        raise InputError(
            f"{path} has 16-bit colours, and its data set uses only {how.bits} of the bits, of which Pillow "
            f"keeps the highest {max(how.bits - 8, 0)}: scale the images to 8 bits"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about transparency in palettes, which is dropped on purpose
            return image.convert("RGB")
    except ValueError as error:
        raise InputError(f"{path} has colour mode {image.mode}: convert it to RGB") from error


class Header(NamedTuple):
    """The header of an image file; ``size`` is (width, height) of the pixels as stored.

    ``transparent``: has an alpha channel or transparent colours. ``deep``: has 16-bit colours, of which PIL
    keeps the high bytes. ``profile``: has a colour profile other than sRGB.
    """

    size: tuple[int, int]
    orientation: int
    mode: str
    frames: int
    transparent: bool
    deep: bool
    profile: bool

    def shown_size(self, how: Decoding) -> tuple[int, int]:
        """Width and height of the image that ``read_image`` returns."""
        return self.size[::-1] if how.upright and self.orientation >= 5 else self.size


def read_header(path: Path) -> Header:
    """Read the header of an image file without decoding pixels. Raises InputError naming the file."""
    try:
        with _opened(path) as image:
            orientation, size = _orientation(image), image.size
            if image.format == "TIFF" and orientation >= 5:  # PIL's size is that of the rotated image
                size = size[::-1]
            profile = (image.info.get("icc_profile") or b"").replace(b"\0", b"")  # its name can be UTF-16
            return Header(
                size,
                orientation,
                image.mode,
                frames=int(getattr(image, "n_frames", 1)),
                transparent=image.mode in ALPHA or "transparency" in image.info,
                deep=_is_deep(image),
                profile=bool(profile) and b"sRGB" not in profile,
            )
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def decode(path: Path, how: Decoding) -> Image.Image:
    """Decode an image file to a PIL image of any mode, upright unless ``how`` specifies otherwise."""
    try:
        with _opened(path) as image:
            if image.width * image.height > how.max_pixels:
                raise InputError(
                    f"{path} has {image.width}x{image.height} pixels, the limit is {how.max_pixels:,}: "
                    f"cut it into tiles, scale it down, or raise the limit with --max-pixels "
                    f"{image.width * image.height}"
                )
            if problem := _misread(image):
                raise InputError(f"{path} is a TIFF {problem}")
            turn = _turn(image, how.upright)
            image.load()
            if turn is None:
                return image
            turned = image.transpose(turn)
            turned.format = image.format
            return turned
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory: scale it down or cut it into tiles") from error
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _misread(image: Image.Image) -> str:
    """Why PIL would silently return wrong pixels of a TIFF; "" if it does not."""
    tags = getattr(image, "tag_v2", {})
    if image.mode[0] in "IF" and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        return "of more than 8 bits in which 0 is white: convert it so that 0 is black"
    if image.mode[0] not in "IF" and SIGNED in tags.get(SAMPLE_FORMAT, ()):
        return "of signed values: convert it to unsigned ones"
    if tags.get(PLANES) == SEPARATE and 16 in tags.get(BITS, ()) and len(tags.get(BITS, ())) > 1:
        return "of 16-bit colours in separate planes: convert it to 8 bits"
    return ""


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is not decoded yet has 16-bit colours."""
    tags = getattr(image, "tag_v2", {})
    packed = str(getattr(image, "tile", "")) if image.format == "PNG" else ""  # such as RGB;16B
    return image.mode[0] not in "IF" and (16 in tags.get(BITS, ()) or ";16" in packed)


def _turn(image: Image.Image, upright: bool) -> Image.Transpose | None:
    """The rotation that decoding needs: by the EXIF orientation, which PIL itself applies to TIFF files."""
    orientation = _orientation(image)
    if image.format != "TIFF":
        return _TURNS.get(orientation) if upright else None
    return None if upright else _TURNS.get({6: 8, 8: 6}.get(orientation, orientation))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (as stored) if it is missing or invalid.

    For an image that is not decoded yet: PIL would decode a whole PNG to search for an EXIF block after its
    pixels, where no writer puts one.
    """
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except _DAMAGE:  # a corrupted EXIF block is no reason to reject the image
        return 1
    return value if value in range(1, 9) else 1


_BOMB = threading.Lock()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image of which only the header has been read."""
    with _BOMB, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual headers
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # sizes are checked here
        try:
            image = Image.open(path, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _unreadable(path: Path, error: BaseException) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return InputError(f"{path} cannot be read: permission denied")
    if path.is_file() and path.stat().st_size == 0:
        return InputError(f"{path} is empty (0 bytes): get the file again")
    if isinstance(error, Image.UnidentifiedImageError):
        return InputError(
            f"{path} cannot be read as an image (not an image in a supported format, whatever its name: "
            f"{', '.join(FORMATS)} of 8 or 16 bits): get the file again or convert it"
        )
    return InputError(
        f"{path} cannot be read as an image ({' '.join(str(error).split())}): get the file again"
    )


def _from_16_bit(values: NDArray[np.generic], path: Path, bits: int) -> NDArray[np.uint8]:
    largest = require_16_bit(values, path)
    white = 2**bits - 1
    if largest > white:
        raise InputError(f"{path} has the value {largest}, more than the {bits} bits of its data set hold")
    grey = ((values.astype(np.int64) * 255 + white // 2) // white).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def require_16_bit(values: NDArray[np.generic], path: Path) -> int:
    """The largest pixel value of an image. Raises InputError if a value is outside the 16-bit range."""
    smallest, largest = int(values.min()), int(values.max())
    if smallest < 0 or largest > 65535:
        raise InputError(f"{path} has pixel values outside the 16-bit range: convert it to 8 or 16 bits")
    return largest
