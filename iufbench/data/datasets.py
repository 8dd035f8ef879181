"""Opening data sets by name and folder: layouts, lists, synthetic stand-ins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path

from iufbench.cards.datasets import DataSetCard, dataset_card
from iufbench.cards.registry import card_paths
from iufbench.cards.request import Request
from iufbench.data.cache.array_store import private
from iufbench.data.decoding import MAX_PIXELS, Decoding
from iufbench.data.layouts import LAYOUTS
from iufbench.data.readers.elpv import read_elpv
from iufbench.data.readers.folders import is_flat
from iufbench.data.readers.inclad_csv import read_inclad_csv
from iufbench.data.readers.json_lists import read_json_lists
from iufbench.data.readers.meta_json import read_meta_json
from iufbench.data.readers.reading import SYNTHETIC_MARKER, in_order
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError
from iufbench.support.fields import suggest
from iufbench.support.folders import cache_folder

MIXED = "mixed"  # the data set of protocols over several data sets
Lists = tuple[Path, ...] | None


def data_folder() -> Path | None:
    """``$IUFBENCH_DATA``, the folder that contains the data sets; None if it is not set."""
    base = os.environ.get("IUFBENCH_DATA")
    return Path(base) if base else None


def default_root(name: str) -> Path | None:
    """``$IUFBENCH_DATA/<name>`` if the variable is set, else None."""
    base = data_folder()
    return base / name if base else None


def known_objects(
    name: str,
    root: Path | None,
    lists: Lists = None,
    order: Sequence[str] | None = None,
    card_file: Path | None = None,
    good: Sequence[str] = (),
) -> tuple[str, ...]:
    """List the objects of a data set: from its card, or for a custom data set as found by ``open_dataset``.

    Args:
        name: Name of the data set.
        root: Its folder; None for ``default_root``.
        lists: As for ``open_dataset``.
        order: Read only these objects; others need not be readable.
        card_file: The user's own card.
        good: Further names of folders with normal images.

    Returns:
        The names of the objects, in the data set's order.

    Raises:
        InputError: The data set is unknown and no folder is given, or a known name is in the wrong case:
            results on MVTec AD must not be recorded as those of a custom data set "MVTec".
    """
    card = dataset_card(name, card_file)
    if card is not None:
        return card.objects
    if name == MIXED:
        raise InputError(f"'{MIXED}' is for protocol cards that list <dataset>.<object> (docs/streams.md)")
    cards = card_paths("dataset")
    known = ", ".join(cards)
    if name.lower() in cards:
        raise InputError(f"unknown data set '{name}'; did you mean '{name.lower()}'? (known: {known})")
    if root is None and default_root(name) is None:
        raise InputError(
            f"unknown data set '{name}'{suggest(name, cards)} (known: {known}); for your own folder in MVTec "
            "layout give --data-root DIR"
        )
    wanted = None if order is None else tuple(dict.fromkeys(order))
    return open_dataset(name, wanted, root, lists, good=good).objects


def known_orders(
    name: str, root: Path | None, lists: Lists = None, card_file: Path | None = None
) -> dict[str, tuple[str, ...]]:
    """The published orders of a data set's objects, by name, from its card and the manifest in ``lists``."""
    card = dataset_card(name, card_file)
    orders = card.orders if card else {}
    if lists is not None and len(lists) == 1:
        orders = {**orders, **open_dataset(name, None, root, lists).orders}
    return orders


def open_dataset(
    name: str,
    objects: Sequence[str] | None = None,
    root: Path | None = None,
    lists: Lists = None,
    card_file: Path | None = None,
    good: Sequence[str] = (),
    max_pixels: int | None = None,
) -> DataSet:
    """Read a data set.

    A folder with a ``SYNTHETIC.json`` is synthetic: ``-synthetic`` is appended to its name, whatever name was
    given on the command line.

    Args:
        name: Name of the data set.
        objects: Objects to read, in this order; None for all.
        root: The folder; None for ``default_root``.
        lists: A manifest (``.json`` or ``.csv``), or IUF/UniAD JSON-lines lists of training and test images;
            paths in them are relative to ``root``.
        card_file: The user's own card.
        good: Names of folders with normal images, in addition to the card's.
        max_pixels: Larger images are rejected; None for the default limit.

    Returns:
        The data set.

    Raises:
        InputError: The folder is missing or invalid.
    """
    card = dataset_card(name, card_file)
    dataset = _read(name, card, objects, root, lists, (*good, *(card.good if card else ())))
    upright = card is None or card.exif == "apply"
    return replace(dataset, decoding=Decoding(upright, max_pixels=max_pixels or MAX_PIXELS))


def open_requested(request: Request, name: str, objects: Sequence[str], root: Path | None) -> DataSet:
    """The data set of a run, below ``root``. Raises InputError as ``open_dataset`` does."""
    good, limit = request.good_names, request.max_pixels
    return open_dataset(name, objects, root, request.lists, request.card, good, limit)


def _read(
    name: str,
    card: DataSetCard | None,
    objects: Sequence[str] | None,
    root: Path | None,
    lists: Lists,
    good: Sequence[str],
) -> DataSet:
    if name == MIXED:
        return _open_mixed(objects or (), root or data_folder(), lists)
    layout = card.layout if card else "mvtec"
    if layout not in LAYOUTS:
        raise InputError(
            f"data set {name}: no layout '{layout}'{suggest(layout, LAYOUTS)} ({', '.join(LAYOUTS)})"
        )
    if card is not None:
        _require_options(card)
    usual = default_root(name)
    if layout == "elpv":
        if lists is not None:
            raise InputError(f"--train-list, --test-list, --manifest: {name} has its own fixed split")
        if root is None and usual is not None and usual.is_dir():
            root = usual  # otherwise from the installed package
        return read_elpv(root, name=name, objects=objects)
    root = root or usual
    if root is None or not root.is_dir():
        raise InputError(_how_to_get(name, card, root))
    synthetic = (root / SYNTHETIC_MARKER).is_file()
    filed = f"{name}-synthetic" if synthetic else name
    if lists is not None:
        if good:
            raise InputError(f"--good-name {good[0]}: {lists[-1]} says which images are normal")
        return _read_lists(root, lists, filed, objects, synthetic)
    if card is None and is_flat(root, objects, good):
        layout = "flat"
    options = dict(card.options) if card else {}
    if good:
        if layout not in ("mvtec", "visa", "flat", "mvtec3d"):
            raise InputError(f"--good-name {good[0]}: the layout '{layout}' has no such folders")
        options["good"] = good
    return LAYOUTS[layout](root, name=filed, objects=objects, synthetic=synthetic, **options)


def _require_options(card: DataSetCard) -> None:
    """Raise InputError unless ``options`` are keyword arguments of the layout's reader, of their types."""
    usual = ("root", "name", "objects", "synthetic", "good")
    known = {
        key: of.default for key, of in signature(LAYOUTS[card.layout]).parameters.items() if key not in usual
    }
    for key, value in card.options.items():
        if key not in known:
            raise InputError(
                f"card of data set {card.name}: the layout '{card.layout}' has no option {key!r}"
                f"{suggest(str(key), known)} (allowed: {', '.join(known) or 'none'})"
            )
        if type(value) is not type(known[key]):
            kind = "true or false" if isinstance(known[key], bool) else "text"
            raise InputError(f"card of data set {card.name}: options.{key} must be {kind}, not {value!r}")


def _open_mixed(objects: Sequence[str], root: Path | None, lists: Lists) -> DataSet:
    """Objects of several data sets, each named ``<dataset>.<object>`` and read from ``<root>/<dataset>``.

    Raises InputError for an object of an unknown data set, for the same images under two names, and as
    ``open_dataset`` does for each data set.
    """
    if lists is not None:
        raise InputError(f"--manifest, --train-list, --test-list: '{MIXED}' reads each data set as it is")
    if root is None or not root.is_dir():
        raise InputError(
            f"{MIXED}: give --data-root DIR (or set IUFBENCH_DATA): a folder with a folder for each data set"
        )
    chosen: dict[str, list[str]] = {}
    for name in objects:
        source, _, own = name.partition(".")
        if not own or source not in card_paths("dataset"):
            known = suggest(source, card_paths("dataset"))
            raise InputError(f"{MIXED}: '{name}' is not <dataset>.<object> of a data set with a card{known}")
        chosen.setdefault(source, []).append(own)
    parts = {source: open_dataset(source, own, root / source) for source, own in chosen.items()}
    first: dict[Path, str] = {}
    for source, part in parts.items():
        for sample in part.samples:
            other = first.setdefault(sample.image.resolve(), source)
            if other != source:
                raise InputError(
                    f"{MIXED}: {source} and {other} contain the same images ({sample.image}): "
                    "a data set cannot be mixed with itself"
                )
    samples = [
        replace(s, object=f"{source}.{s.object}") for source, part in parts.items() for s in part.samples
    ]
    return DataSet(
        name=MIXED + ("-synthetic" if any(p.synthetic for p in parts.values()) else ""),
        root=root,
        objects=tuple(objects),
        samples=in_order(samples, objects),
        has_masks=any(p.has_masks for p in parts.values()),
        synthetic=any(p.synthetic for p in parts.values()),
        notes=tuple(f"{source}: {note}" for source, p in parts.items() for note in p.notes),
        noisy_training=any(p.noisy_training for p in parts.values()),
    )


def _read_lists(
    root: Path, lists: tuple[Path, ...], name: str, objects: Sequence[str] | None, synthetic: bool
) -> DataSet:
    if len(lists) == 2:
        return read_json_lists(root, *lists, name=name, objects=objects, synthetic=synthetic)
    (manifest,) = lists
    readers = {".json": read_meta_json, ".csv": read_inclad_csv}
    if manifest.suffix.lower() not in readers:
        raise InputError(f"--manifest {manifest}: must be a meta.json (.json) or an InCLAD table (.csv)")
    return replace(readers[manifest.suffix.lower()](root, manifest, name, objects), synthetic=synthetic)


def _how_to_get(name: str, card: DataSetCard | None, root: Path | None) -> str:
    what = f"{root} is not a folder" if root is not None else f"no folder given for {name}"
    if card is None:
        return f"{what}: give --data-root DIR (a folder in MVTec layout)"
    fetch = f" (`iufbench data download {name} DIR`)" if card.download.get("sha256") else ""
    where = f" from {card.home}" if card.home else ""
    return (
        f"{what}: download {card.title}{where}{fetch} and give --data-root DIR (or set IUFBENCH_DATA to the "
        f"folder above it), or use --synthetic for a synthetic stand-in"
    )


def synthetic_root(name: str, seed: int = 0, progress: bool = True) -> Path:
    """The synthetic stand-in of a data set, generated in the cache folder on first use.

    A folder that other users can write to is compared with a few images drawn again.

    Raises InputError if there is none for this data set, or if such a folder has other images.
    """
    from iufbench.data.synthetic import DATASETS, GENERATOR_VERSION, differing, make

    if name not in DATASETS:
        raise InputError(f"there is no synthetic stand-in for '{name}' (there is for: {', '.join(DATASETS)})")
    root = cache_folder() / "synthetic" / f"{name}-v{GENERATOR_VERSION}-seed{seed}"
    if not (root / SYNTHETIC_MARKER).is_file():
        try:
            make(root, dataset=name, seed=seed, progress=progress)
        except InputError:
            # Two runs may start at once: the images are identical, whichever run generated them first.
            if not (root / SYNTHETIC_MARKER).is_file():
                raise
    elif not private([root.parent, root, *root.rglob("*")]) and (other := differing(root, name, seed)):
        raise InputError(
            f"{root} can be written to by other users, and {other} is not the image that this version draws: "
            "set IUFBENCH_CACHE to a folder of your own"
        )
    return root
