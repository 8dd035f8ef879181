"""Names to cards and classes, lazily: listing names imports neither torch nor Avalanche."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from iufbench.errors import InputError
from iufbench.fields import suggest

_ROOMS = {
    "strategy": ("iufbench.strategies", "."),
    "protocol": ("iufbench.benchmarks", "protocols"),
    "dataset": ("iufbench.benchmarks", "datasets"),
}
_PLURALS = {"strategy": "strategies", "protocol": "protocols", "dataset": "datasets"}


@cache
def card_paths(kind: str) -> dict[str, Path]:
    """name -> card file of every installed card of a kind (strategy, protocol, dataset).

    Files whose name starts with an underscore are shared parts for ``extends:``, not cards.
    """
    package, folder = _ROOMS[kind]
    root = Path(str(resources.files(package))) / folder
    return {p.stem: p for p in sorted(root.glob("*.yaml")) if not p.stem.startswith("_")}


def find_card(kind: str, name: str) -> Path:
    """The card file of a name, or of a path to the user's own ``.yaml`` file.

    Raises InputError with the closest name and the list when there is no such card.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{kind} card {name}: no such file")
        return path
    paths = card_paths(kind)
    if name not in paths:
        known = ", ".join(paths)
        raise InputError(
            f"unknown {kind} '{name}'{suggest(name, paths)} "
            f"(known: {known}; see `iufbench list {_PLURALS[kind]}`)"
        )
    return paths[name]


def load_class(target: str, where: Path) -> Any:
    """Import ``module:attribute``; modules beside the card ``where`` are found too (a user's own learner).

    Raises InputError that shows the import's own error and the path of the card.
    """
    module_name, _, attribute = target.partition(":")
    if not attribute:
        raise InputError(f"{where}: learner must be 'module:Class', not '{target}'")
    folder = str(where.parent.resolve())
    own = find_room(where) is None
    if own and folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises is theirs to see
        raise InputError(
            f"{where}: cannot import learner module '{module_name}': {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise InputError(
            f"{where}: module '{module_name}' has no '{attribute}'{suggest(attribute, dir(module))}"
        )
    return getattr(module, attribute)


def find_room(card: Path) -> str | None:
    """The kind whose installed folder holds this card, or None for a user's own file."""
    for kind in _ROOMS:
        if card.resolve() in {p.resolve() for p in card_paths(kind).values()}:
            return kind
    return None


def room(module: str) -> Any:
    """A module of the rooms beside the harness, imported only when a run needs it."""
    return importlib.import_module(f"iufbench.{module}")
