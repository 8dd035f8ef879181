"""How the image files of a data set are decoded, according to its card and a survey of its images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from iufbench.support.fields import number

MAX_PIXELS = 100_000_000  # an image of 300 MB in memory; the largest official one has 4 million


@dataclass(frozen=True)
class Decoding:
    """``upright``: apply the EXIF orientation to images and masks. ``bits``: bit depth of 16-bit images, 8 to
    16: the value ``2**bits - 1`` becomes 255. ``max_pixels``: larger images are rejected.
    """

    upright: bool = True
    bits: int = number(16, at_least=8, at_most=16)
    max_pixels: int = number(MAX_PIXELS, at_least=1)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def pixels(self) -> str:
        """The settings that affect pixels, for the identity of a cache entry."""
        return f"{'upright' if self.upright else 'as stored'}, {self.bits} bits"


AS_SHOWN = Decoding()
"""Decoding as image viewers do it; 16-bit images use their full range."""
