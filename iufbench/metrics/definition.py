"""Metric definitions: title, formula, users, and whether higher is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Definition:
    """One named metric. ``formula`` is one line without a full stop; ``needs`` lists further arguments."""

    name: str
    title: str
    formula: str
    used_by: str
    higher_is_better: bool
    function: Callable[..., Any]
    needs: tuple[str, ...] = ()
