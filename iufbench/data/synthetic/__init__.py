"""Synthetic data sets: rendered scenes that stand in for the objects of VisA and MVTec AD."""

from __future__ import annotations

from .contact_sheet import preview
from .render import GENERATOR_VERSION
from .scene import REGISTRY
from .writer import differing, make

DATASETS = tuple(REGISTRY)

__all__ = ["DATASETS", "GENERATOR_VERSION", "differing", "make", "preview"]
