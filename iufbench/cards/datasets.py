"""Data set cards: what is known about a data set before its images are seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from iufbench.cards.registry import card_paths
from iufbench.cards.strategies import read_yaml
from iufbench.support.fields import build


@dataclass(frozen=True)
class DataSetCard:
    """What is known about a data set: its layout, objects in order, official counts and licence.

    ``preset`` is the training preset that runs on it use unless told otherwise.
    """

    name: str
    title: str
    layout: Literal["mvtec", "visa", "elpv"]
    objects: tuple[str, ...]
    version: int = 1
    preset: Literal["paper", "quick"] = "paper"
    counts: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    home: str = ""
    download: dict[str, Any] = field(default_factory=dict)
    source: str = ""


def dataset_cards() -> dict[str, DataSetCard]:
    """Every data set that has a card, by name."""
    paths = card_paths("dataset")
    return {name: build(DataSetCard, read_yaml(path), str(path)) for name, path in paths.items()}
