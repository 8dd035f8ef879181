"""The project's own synthetic data: drawn scenes that stand for the objects of VisA and MVTec AD."""

from __future__ import annotations

GENERATOR_VERSION = 1  # rises whenever any image may come out different
