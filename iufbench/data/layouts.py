"""The table of layouts: name on a data set card -> reader.

A reader takes ``(root, name, objects, synthetic, **options)`` and returns a ``DataSet``; ``options`` are
those of the card. A new data set needs a card, and a new reader only if none of these layouts matches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from iufbench.data.readers.dagm import read_dagm
from iufbench.data.readers.elpv import read_elpv
from iufbench.data.readers.folders import read_flat, read_magnetic_tiles
from iufbench.data.readers.kolektor import read_kolektorsdd, read_kolektorsdd2
from iufbench.data.readers.mvtec import read_mvtec
from iufbench.data.readers.mvtec3d import read_mvtec3d
from iufbench.data.readers.mvtec_ad_2 import read_mvtec_ad_2
from iufbench.data.readers.realiad import read_realiad
from iufbench.data.readers.visa import LIST, read_visa
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError


def _visa(
    root: Path, name: str, objects: Sequence[str] | None, synthetic: bool, good: Sequence[str] = ()
) -> DataSet:
    """VisA in its published layout, or prepared in the one-class MVTec layout."""
    if (root / "split_csv").exists() or any(root.glob("*/Data/Images")):
        if good:
            raise InputError(f"--good-name {good[0]}: {root / LIST} says which images are normal")
        return read_visa(root, name=name, objects=objects, synthetic=synthetic)
    return read_mvtec(root, name=name, objects=objects, synthetic=synthetic, good=good)


LAYOUTS: dict[str, Callable[..., DataSet]] = {
    "mvtec": read_mvtec,
    "visa": _visa,
    "elpv": read_elpv,
    "mvtec3d": read_mvtec3d,
    "mvtec_ad_2": read_mvtec_ad_2,
    "realiad": read_realiad,
    "dagm": read_dagm,
    "kolektorsdd": read_kolektorsdd,
    "kolektorsdd2": read_kolektorsdd2,
    "magnetic_tiles": read_magnetic_tiles,
    "flat": read_flat,
}
