"""Defect masks: decoding as intended by the annotator, and detection of likely faults.

A pixel is defective if the mask is not zero: MVTec AD writes 255, VisA the defect's class 1..k. In colour
masks, if any channel is not zero. In palette masks, the index is used if index 0 is black or all colours
are (VisA), and the colour if black has another index (quantising tools write white first) or several. A
varying alpha channel is part of the mask: if all colours are equal, it is the mask; otherwise the mask is
what is coloured and opaque. Several files are combined by union (MVTec LOCO). Masks are resized with
nearest neighbour.

Definite faults raise InputError: a size different from the image, a mask that marks nothing, a JPEG. Likely
faults are reported as ``doubts``: inverted, smoothed or compressed masks, palettes without black, several
frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iufbench.data.decoding import AS_SHOWN, Decoding
from iufbench.data.images import ALPHA, Header, decode, read_header
from iufbench.data.samples import Sample
from iufbench.support.errors import InputError

CLASSES = 16  # official masks have at most this many values: 0 and 255, or 0 and the classes of defects
Pixels = NDArray[np.bool_]
Values = NDArray[Any]


@dataclass(frozen=True)
class MaskFacts:
    """Properties of a mask. ``share``: fraction of marked pixels; ``border``: the same on the image border;
    ``between``: fraction of values between the smallest and the largest; ``smoothed``: these look like the
    result of resizing, blurring or JPEG, not like classes; ``odd``: why its decoding is a guess, "" if not.
    """

    share: float
    border: float
    between: float
    smoothed: bool
    odd: str = ""

    @property
    def surrounds(self) -> bool:
        """Whether the mask marks most of its image, or most of the border of the image."""
        return self.share > 0.5 or self.border >= 0.75


@dataclass(frozen=True)
class Doubt:
    """A likely fault of the masks of an object; ``sample`` is the first one affected."""

    object: str
    sample: Sample
    message: str


def read_mask(sample: Sample, how: Decoding = AS_SHOWN) -> Pixels:
    """Read the mask of a defective sample at its original size, bool [height, width]: the union of its files.

    Raises InputError for a sample without a mask, or a mask that cannot be read, differs in size from its
    image, marks no pixel, or is a JPEG (compression artefacts are above 0 everywhere).
    """
    return inspect_mask(sample, how)[0]


def load_mask(sample: Sample, size: int, how: Decoding = AS_SHOWN) -> Pixels:
    """Load a sample's mask, bool [size, size]; all False for a normal image or if no defect is visible.

    Small defects can vanish in resizing, so an empty result for a defective image is allowed; an empty mask
    file is not. Raises InputError as ``read_mask`` does.
    """
    return load_masks([sample], size, how)[0][0]


@dataclass(frozen=True)
class PackedMasks:
    """Masks [N, S, S] with one bit per pixel: those of all test images are kept for the whole run.

    ``bits`` uint8 [N, ceil(S * S / 8)]; ``side``: S.
    """

    bits: np.ndarray
    side: int

    @classmethod
    def of(cls, masks: np.ndarray) -> PackedMasks:
        """Pack bool [N, S, S]."""
        side = masks.shape[-1]
        return cls(np.packbits(masks.reshape(len(masks), side * side), axis=1), side)

    def unpacked(self) -> np.ndarray:
        """Unpack to bool [N, S, S]."""
        flat = np.unpackbits(self.bits, axis=1, count=self.side**2)
        return flat.view(bool).reshape(len(self.bits), self.side, self.side)


def load_masks(samples: Sequence[Sample], size: int, how: Decoding = AS_SHOWN) -> tuple[Pixels, list[Doubt]]:
    """Load the masks of samples as ``load_mask`` does, bool [N, size, size], with their likely faults."""
    masks, facts = np.zeros((len(samples), size, size), dtype=bool), []
    for k, sample in enumerate(samples):
        if sample.label == 1 and not sample.unseen:
            whole, found = inspect_mask(sample, how)
            facts.append((sample, found))
            small = Image.fromarray(whole.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
            masks[k] = np.asarray(small) > 0
    return masks, doubts(facts)


def is_marked(file: Path, how: Decoding = AS_SHOWN) -> bool:
    """Whether a mask marks any pixel. Raises InputError if it cannot be read or is a JPEG."""
    return bool((_values(_decoded(file, how))[0] > 0).any())


def inspect_mask(sample: Sample, how: Decoding = AS_SHOWN) -> tuple[Pixels, MaskFacts]:
    """``read_mask``, and the properties that reveal a wrong mask. Raises InputError as ``read_mask`` does."""
    if sample.mask is None:
        raise InputError(f"defective image {sample.image} has no mask")
    header = read_header(sample.image)
    parts = [_read(sample, file, header, how) for file in sample.mask_files]
    marked: Pixels = np.logical_or.reduce([part[0] for part in parts])
    rim = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    facts = MaskFacts(
        share=float(marked.mean()),
        border=float(rim.mean()),
        between=max(part[1] for part in parts),
        smoothed=any(part[2] for part in parts),
        odd=next((part[3] for part in parts if part[3]), _turned(header, how)),
    )
    return marked, facts


def _turned(header: Header, how: Decoding) -> str:
    """A description if the mask might have been drawn on the pixels as stored; else ""."""
    if not how.upright or header.orientation == 1 or header.shown_size(how) != header.size:
        return ""
    return (
        "belong to images with an EXIF orientation, and are assumed to be drawn on the rotated image; "
        "their size matches either way"
    )


def _read(sample: Sample, file: Path, image: Header, how: Decoding) -> tuple[Pixels, float, bool, str]:
    """(marked pixels, fraction of values between the extremes, smoothed, oddities) of one file."""
    mask = _decoded(file, how)
    if mask.size != image.shown_size(how):
        raise InputError(_wrong_size(sample, file, mask.size, image, how))
    values, odd = _values(mask)
    header = read_header(file)
    if header.frames > 1:
        odd = "have several frames, of which only the first is read"
    elif header.deep:
        odd = "have 16-bit colours, of which values below 256 count as normal"
    marked = values > 0
    if not marked.any():
        raise InputError(f"mask {file} marks no pixel, but its image is listed as defective")
    between, smoothed = _levels(values)
    return marked, between, smoothed, odd


def _decoded(file: Path, how: Decoding) -> Image.Image:
    mask = decode(file, how)
    if mask.format == "JPEG":
        raise InputError(f"mask {file} is a JPEG, which cannot keep exact values: use PNG")
    if mask.mode in ("CMYK", "LAB", "HSV", "YCbCr"):  # where black is not zero
        raise InputError(f"mask {file} has colour mode {mask.mode}: convert it to grey")
    return mask


def _wrong_size(sample: Sample, file: Path, size: tuple[int, int], image: Header, how: Decoding) -> str:
    width, height = image.shown_size(how)
    text = f"mask {file} is {size[0]}x{size[1]} pixels, its image {sample.image} is {width}x{height}"
    if size != (height, width):
        return f"{text}: draw it at the image's size"
    if image.size == size:  # the EXIF orientation makes the difference
        return (
            f"{text} after applying its EXIF orientation, and {size[0]}x{size[1]} as stored: rotate the mask "
            f"accordingly, or write 'exif: ignore' on the data set's card"
        )
    return f"{text}: is one of them rotated by 90 degrees?"


def _values(mask: Image.Image) -> tuple[Values, str]:
    """Values [height, width], above zero where the mask marks, and oddities of the decoding."""
    if "transparency" in mask.info and mask.mode in ("1", "L", "P", "RGB"):
        mask = mask.convert("RGBA")
    if mask.mode == "P":
        return _of_palette(mask)
    if mask.mode in ALPHA:
        return _with_alpha(np.asarray(mask.convert("RGBA")))
    channels = np.asarray(mask).reshape(mask.height, mask.width, -1)
    return channels.max(axis=2), ""


def _of_palette(mask: Image.Image) -> tuple[Values, str]:
    index = np.asarray(mask)
    colours = np.zeros((256, 3), np.uint8)
    known = np.array(mask.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    shade = colours.max(axis=1)
    used = np.unique(index)
    black = int((shade[used] == 0).sum())
    if black == len(used) or (used[0] == 0 and shade[0] == 0 and black == 1):
        return index, ""
    if used[0] == 0 and shade[0] == 0:
        return shade[index], "have more than one black in their palette, all assumed to mean normal pixels"
    if len(used) == 1 or (shade[used] == 0).any():
        return shade[index], ""
    return index, "have a palette without black, of which index 0 is assumed to mean normal pixels"


def _with_alpha(rgba: NDArray[np.uint8]) -> tuple[Values, str]:
    colour, alpha = rgba[..., :3].max(axis=2), rgba[..., 3]
    if alpha.min() == alpha.max():
        return colour, ""
    if (rgba[..., :3] == rgba[0, 0, :3]).all():
        return alpha, ""
    both = np.minimum(colour, alpha)
    if not both.any():  # drawn in black on a transparent background
        return alpha, "are black where they are opaque, and assumed to mark the opaque pixels"
    if np.array_equal(both > 0, alpha > 0) or np.array_equal(both > 0, colour > 0):
        return both, ""
    return both, "have colours and an alpha channel that differ: what is coloured and opaque is marked"


def _levels(values: Values) -> tuple[float, bool]:
    """(fraction of values between the smallest and the largest, whether they look like smoothing).

    Defect classes fill areas and are few small numbers; resizing, blurring and compression produce many
    values, or a few values between 0 and white that no pixel shares with all of its neighbours.
    """
    if values.dtype == np.bool_:
        return 0.0, False
    if values.dtype == np.uint8:
        counts = np.array(Image.fromarray(np.asarray(values, np.uint8)).histogram())
        levels = np.flatnonzero(counts)
        inner = int(counts[levels[1:-1]].sum())
    else:
        levels, counts = np.unique(values, return_counts=True)
        inner = int(counts[1:-1].sum())
    share = inner / values.size
    if len(levels) > CLASSES:
        return share, True
    if not inner or float(levels[-1]) < 128:
        return share, False
    between = (values > levels[0]) & (values < levels[-1])
    inside = values[1:-1, 1:-1]
    flat = between[1:-1, 1:-1]
    for neighbour in (values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]):
        flat = flat & (neighbour == inside)
    return share, not flat.any()


def doubts(facts: Iterable[tuple[Sample, MaskFacts]]) -> list[Doubt]:
    """Likely faults of masks, one per object and kind of fault."""
    by_object: dict[str, list[tuple[Sample, MaskFacts]]] = defaultdict(list)
    for sample, found in facts:
        by_object[sample.object].append((sample, found))
    result = []
    for name, own in by_object.items():
        large = [pair for pair in own if pair[1].surrounds]
        if 2 * len(large) <= len(own):  # an occasional large defect does not fill the border as well
            large = [pair for pair in large if pair[1].share > 0.5 and pair[1].border >= 0.75]
        smoothed = [pair for pair in own if pair[1].smoothed]
        groups: dict[str, list[tuple[Sample, MaskFacts]]] = {
            "mark most of their image or of its border: are they inverted?": large,
            f"hold intermediate values, as if smoothed or compressed "
            f"({100 * float(np.mean([f.between for _, f in smoothed] or [0])):.2g} % of their pixels): "
            "each value above 0 counts as defective": smoothed,
        }
        for pair in own:
            if pair[1].odd:
                groups.setdefault(pair[1].odd, []).append(pair)
        for text, pairs in groups.items():
            if pairs:
                first = pairs[0][0]
                place = f"{len(pairs)} of {len(own)} masks"
                assert first.mask is not None
                result.append(Doubt(name, first, f"{place}, such as {first.mask.name}, {text}"))
    return result
