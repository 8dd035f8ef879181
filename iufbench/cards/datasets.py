"""Data set cards: what is known about a data set before its images are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from iufbench.cards.registry import card_paths, local_cards, shipped_cards
from iufbench.cards.yaml_files import read_yaml
from iufbench.support.errors import InputError
from iufbench.support.fields import build, number, suggest
from iufbench.support.names import alike, problem_with_name

COUNTED = ("train", "test_good", "test_defective", "train_defective", "validation")


@dataclass(frozen=True)
class DataSetCard:
    """What is known about a data set: its layout, objects in order, counts and licence.

    ``layout`` names the reader (``iufbench.data.layouts``) and ``options`` are its keyword arguments.
    ``preset`` is the default training preset for runs on it. ``counts_are`` says whether ``counts`` come from
    an official list of files or are unverified (from papers and recollection); a mismatch with unverified
    counts is a warning, not an error. ``orders`` are published object orders, by name.

    ``masks``: whether defects are annotated at pixel level. ``without`` lists metrics that have a different
    meaning on this data set and are not computed; ``kinds`` maps a name to the defect types whose image AUROC
    is reported separately as ``auroc_<name>``. ``good``: further folder names (besides good and ok) that hold
    normal images; ``exif: ignore`` ignores the EXIF orientation of images.
    """

    name: str
    title: str
    layout: str
    objects: tuple[str, ...]
    version: int = number(1, at_least=1)
    preset: Literal["paper", "quick"] = "paper"
    options: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    counts_are: Literal["official", "unverified"] = "official"
    orders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    masks: bool = True
    good: tuple[str, ...] = ()
    exif: Literal["apply", "ignore"] = "apply"
    licence: str = ""
    home: str = ""
    download: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    def differing(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        """A line if images are counted (as by ``DataSet.counts``) that the card has other counts of."""
        differ = [
            f"{name} {have} of {want} {kind.replace('_', ' ')}"
            for name, found in counts.items()
            for kind, have in found.items()
            if have != (want := self.counts.get(name, {}).get(kind, have))
        ]
        return [f"other image counts than on the data set's card: {', '.join(differ)}"] if differ else []


def dataset_cards() -> dict[str, DataSetCard]:
    """The cards of all data sets, by name."""
    return {name: _read(path, name) for name, path in card_paths("dataset").items()}


def dataset_content(path: Path) -> dict[str, Any]:
    """The keys of a card merged over those of the card it ``extends``, which may not extend another one."""
    content = read_yaml(path)
    parent = content.pop("extends", None)
    if parent is None:
        return content
    base = path.with_name(f"{parent}.yaml")
    if not base.is_file() or "extends" in (below := read_yaml(base)):
        raise InputError(f"{path}: extends must name a data set card that extends no other, not {parent!r}")
    return {**below, **content}


def dataset_card(name: str, file: Path | None = None) -> DataSetCard | None:
    """Find and read the card of a data set.

    Args:
        name: Name of the data set.
        file: The user's own card; None looks for a card by name.

    Returns:
        The card, None if there is none.

    Raises:
        InputError: The card is invalid or belongs to another data set, or two cards have this name.
    """
    own = own_card(name, file)
    if own is not None:
        return _read(own, name)
    shipped = shipped_cards("dataset").get(name)
    return None if shipped is None else _read(shipped, name)


def own_card(name: str, file: Path | None = None) -> Path | None:
    """The user's own card of a data set: ``file``, or one in the folders of ``local_cards``; else None.

    Raises InputError if the file does not exist, a card that comes with iufbench has the same name, or two
    cards have it.
    """
    if file is not None and not file.is_file():
        raise InputError(f"data set card {file}: no such file")
    found = [path for path in local_cards("dataset") if path.stem == name] if file is None else [file]
    if name.lower() in shipped_cards("dataset") and found:
        raise InputError(
            f"data set card {found[0]}: '{name.lower()}' is the name of a card that comes with iufbench; "
            "rename your card"
        )
    if len(found) > 1:
        raise InputError(f"data set '{name}' has two cards, {found[0]} and {found[1]}: remove one")
    for path in local_cards("dataset") if not found and name not in shipped_cards("dataset") else ():
        if _named(path) == name:
            raise InputError(f"{path}: the card is for data set '{name}': rename the file to {name}.yaml")
    return found[0] if found else None


def _named(path: Path) -> object:
    """The ``name`` on a card; None if the card cannot be read."""
    try:
        return read_yaml(path).get("name")
    except InputError:
        return None


def _read(path: Path, name: str) -> DataSetCard:
    if not os.path.isfile(path):
        what = "is not a regular file" if os.path.exists(path) else "no such file"
        raise InputError(f"data set card {path}: {what}")
    card = build(DataSetCard, dataset_content(path), str(path))
    if card.name != name:
        raise InputError(f"{path}: the card is for data set '{card.name}', not '{name}'")
    _require_consistent(card, path)
    return card


def _require_consistent(card: DataSetCard, path: Path) -> None:
    """Raise InputError for invalid names of objects, and for counts and orders of other objects."""
    for k, name in enumerate(card.objects):
        rule = problem_with_name(name)
        if rule is not None:
            raise InputError(f"{path}: {name[:60]!r} cannot name an object: rename it; the rule: {rule}")
        if name in card.objects[:k]:
            raise InputError(f"{path}: objects names {name!r} twice")
    if pair := alike(card.objects):
        raise InputError(
            f"{path}: the objects {pair[0]!r} and {pair[1]!r} differ only in case, in the composition of "
            "letters, or in '_' and spaces: rename one"
        )
    named = {f"counts.{one}": one for one in card.counts}
    named |= {f"orders.{key}": one for key, order in card.orders.items() for one in order}
    for key, one in named.items():
        if one not in card.objects:
            hint = suggest(str(one), card.objects)
            raise InputError(f"{path}: {key}: {one!r} is none of the card's objects{hint}")
    for one, counts in card.counts.items():
        if not isinstance(counts, dict) or not all(type(n) is int and n >= 0 for n in counts.values()):
            raise InputError(
                f"{path}: counts.{one} must be whole numbers, such as {{train: 8, test_good: 4}}"
            )
        for kind in counts:
            if kind not in COUNTED:
                raise InputError(f"{path}: unknown key 'counts.{one}.{kind}' (allowed: {', '.join(COUNTED)})")
