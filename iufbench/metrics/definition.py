"""What a name in a table means: title, formula, who uses it, which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Definition:
    """One named quantity. ``formula`` is one line without a full stop; ``needs`` names further arguments."""

    name: str
    title: str
    formula: str
    used_by: str
    higher_is_better: bool
    function: Callable[..., Any]
    needs: tuple[str, ...] = ()
