"""From a data set's name and a folder to samples: layouts, lists, synthetic stand-ins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from iufbench.cards.datasets import DataSetCard, dataset_cards
from iufbench.data.readers.elpv import read_elpv
from iufbench.data.readers.json_lists import read_json_lists
from iufbench.data.readers.mvtec import read_mvtec
from iufbench.data.readers.visa import read_visa
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError
from iufbench.support.fields import suggest
from iufbench.support.folders import cache_folder

SYNTHETIC_MARKER = "SYNTHETIC.json"


def default_root(name: str) -> Path | None:
    """``$IUFBENCH_DATA/<name>`` when the variable is set, else None."""
    base = os.environ.get("IUFBENCH_DATA")
    return Path(base) / name if base else None


def known_objects(name: str, root: Path | None, lists: tuple[Path, Path] | None = None) -> tuple[str, ...]:
    """The objects of a data set: from its card, or for a custom one those that ``open_dataset`` finds.

    Raises InputError when it is neither known nor given, and for a known name in the wrong case: results
    on MVTec AD must not be filed as those of a custom data set "MVTec".
    """
    cards = dataset_cards()
    if name in cards:
        return cards[name].objects
    known = ", ".join(cards)
    if name.lower() in cards:
        raise InputError(f"unknown data set '{name}'; did you mean '{name.lower()}'? (known: {known})")
    if root is None and default_root(name) is None:
        raise InputError(
            f"unknown data set '{name}'{suggest(name, cards)} (known: {known}); for your own folder in MVTec "
            "layout give --data-root DIR"
        )
    return open_dataset(name, None, root, lists).objects


def open_dataset(
    name: str,
    objects: Sequence[str] | None = None,
    root: Path | None = None,
    lists: tuple[Path, Path] | None = None,
) -> DataSet:
    """Read a data set. ``lists`` are IUF/UniAD JSON-lines files for train and test below ``root``.

    A folder with a ``SYNTHETIC.json`` is synthetic and gets ``-synthetic`` on its name, whatever it
    was called on the command line. Raises InputError when the folder is missing or not as it should be.
    """
    card = dataset_cards().get(name)
    layout = card.layout if card else "mvtec"
    usual = default_root(name)
    if layout == "elpv":
        if lists is not None:
            raise InputError(f"--train-list and --test-list: {name} has its own fixed split")
        if root is None and usual is not None and usual.is_dir():
            root = usual  # otherwise from the installed package, wherever other data sets lie
        return read_elpv(root, name=name, objects=objects)
    root = root or usual
    if root is None or not root.is_dir():
        raise InputError(_how_to_get(name, card, root))
    synthetic = (root / SYNTHETIC_MARKER).is_file()
    filed = f"{name}-synthetic" if synthetic else name
    if lists is not None:
        return read_json_lists(root, *lists, name=filed, objects=objects, synthetic=synthetic)
    if layout == "visa" and (root / "split_csv").exists():
        return read_visa(root, name=filed, objects=objects, synthetic=synthetic)
    return read_mvtec(root, name=filed, objects=objects, synthetic=synthetic)


def _how_to_get(name: str, card: DataSetCard | None, root: Path | None) -> str:
    what = f"{root} is not a folder" if root is not None else f"no folder given for {name}"
    if card is None:
        return f"{what}: give --data-root DIR (a folder in MVTec layout)"
    fetch = f" (`iufbench data download {name} DIR`)" if card.download.get("sha256") else ""
    where = f" from {card.home}" if card.home else ""
    return (
        f"{what}: download {card.title}{where}{fetch} and give --data-root DIR (or set IUFBENCH_DATA to the "
        f"folder above it), or use --synthetic for a made-up stand-in"
    )


def synthetic_root(name: str, seed: int = 0, progress: bool = True) -> Path:
    """The synthetic stand-in of a data set, made on first use in the cache folder.

    Raises InputError when there is none for this data set.
    """
    from iufbench.data.synthetic import DATASETS, GENERATOR_VERSION, make

    if name not in DATASETS:
        raise InputError(f"there is no synthetic stand-in for '{name}' (there is for: {', '.join(DATASETS)})")
    root = cache_folder() / "synthetic" / f"{name}-v{GENERATOR_VERSION}-seed{seed}"
    if not (root / SYNTHETIC_MARKER).is_file():
        try:
            make(root, dataset=name, seed=seed, progress=progress)
        except InputError:
            # Two runs may start at once: the images are the same whoever made them first.
            if not (root / SYNTHETIC_MARKER).is_file():
                raise
    return root
