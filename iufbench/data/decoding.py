"""How the files of a data set become pixels: what its card says and what a look at its images found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MAX_PIXELS = 100_000_000  # an image of 300 MB in memory; the largest official one has 4 million


@dataclass(frozen=True)
class Decoding:
    """``upright``: images and masks are turned as their EXIF orientation says. ``bits``: depth of the 16-bit
    images, 8 to 16: the value ``2**bits - 1`` becomes 255. ``max_pixels``: larger images are refused.
    """

    upright: bool = True
    bits: int = 16
    max_pixels: int = MAX_PIXELS

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def pixels(self) -> str:
        """What of it changes pixels, for the identity of a cache entry."""
        return f"{'upright' if self.upright else 'as stored'}, {self.bits} bits"


AS_SHOWN = Decoding()
"""What a viewer shows; 16-bit images by all their bits."""
