"""Lazy registry of cards and classes by name: listing names imports neither torch nor Avalanche.

Installed packages add strategies through the entry point group ``iufbench.strategies``: an entry point
``name = package`` refers to the card ``name.yaml`` in ``package``, which is located without importing it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from iufbench.support.errors import InputError, one_line
from iufbench.support.fields import suggest
from iufbench.support.memory import lacks_memory

_ROOMS = {
    "strategy": ("iufbench.strategies", "."),
    "protocol": ("iufbench.benchmarks", "protocols"),
    "dataset": ("iufbench.benchmarks", "datasets"),
    "stream": ("iufbench.benchmarks", "streams"),
}
_PLURALS = {"strategy": "strategies", "protocol": "protocols", "dataset": "datasets", "stream": "streams"}


ENTRY_POINTS = "iufbench.strategies"

# Learners that were moved: name in older cards -> current name.
MOVED = {"iufbench.strategies.base:ReconstructionStrategy": "iufbench.strategies.uniad:UniAD"}


def card_paths(kind: str) -> dict[str, Path]:
    """Map names to card files for all cards of a kind (strategy, protocol, dataset, stream).

    Includes the cards that come with iufbench, the user's own (``local_cards``) and those of installed
    packages. Files whose name starts with an underscore are shared parts for ``extends:``, not cards. Raises
    InputError if an installed package registers a name that is taken or a card that does not exist.
    """
    own = {path.stem: path for path in local_cards(kind)}
    added = {name: _card_of(entry) for name, entry in _plug_ins(kind).items()}
    return {**own, **_own_cards(kind), **added}


def shipped_cards(kind: str) -> dict[str, Path]:
    """name -> card file of every card that comes with iufbench."""
    return dict(_own_cards(kind))


def local_cards(kind: str) -> list[Path]:
    """The user's own data set cards, in ``./benchmarks/datasets`` and the folders of ``$IUFBENCH_CARDS``;
    cards of other kinds are specified by path, so the list is empty for them.

    Raises InputError if ``$IUFBENCH_CARDS`` names something else than folders."""
    if kind != "dataset":
        return []
    named = [Path(os.path.expanduser(f)) for f in os.environ.get("IUFBENCH_CARDS", "").split(os.pathsep) if f]
    for folder in named:
        if not folder.is_dir():
            raise InputError(
                f"IUFBENCH_CARDS: {folder} is not a folder: name folders of cards, separated by "
                f"'{os.pathsep}', or one card with --card FILE"
            )
    shipped = {os.path.realpath(path) for path in _own_cards(kind).values()}
    folders = [Path("benchmarks/datasets"), *named]
    found = {os.path.realpath(path): path for folder in folders for path in sorted(folder.glob("*.y*ml"))}
    return [path for real, path in found.items() if real not in shipped and not path.stem.startswith("_")]


def shipped_grids() -> dict[str, Path]:
    """name -> file of the grids that come with iufbench (``iufbench sweep paper``)."""
    root = Path(str(resources.files("iufbench.benchmarks"))) / "grids"
    return {p.stem: p for p in sorted(root.glob("*.yaml"))}


@cache
def _own_cards(kind: str) -> dict[str, Path]:
    return {p.stem: p for p in sorted(_room(kind).glob("*.yaml")) if not p.stem.startswith("_")}


def _room(kind: str) -> Path:
    package, folder = _ROOMS[kind]
    return Path(str(resources.files(package))) / folder


def find_template(name: str) -> Path:
    """Find the strategy card that ``NAME:VALUE`` completes: ``_NAME.yaml``, which is not listed by itself.

    Raises InputError with all known names if there is no such card.
    """
    path = _room("strategy") / f"_{name}.yaml"
    if path.is_file():
        return path
    known = [p.stem[1:] for p in sorted(_room("strategy").glob("_*.yaml")) if p.stem != "_common"]
    raise InputError(f"unknown strategy '{name}:...'{suggest(name, known)} (known: {', '.join(known)})")


@cache
def _plug_ins(kind: str) -> dict[str, Any]:
    """name -> entry point of the cards of installed packages. Raises InputError for a duplicate name."""
    if kind != "strategy":
        return {}
    from importlib.metadata import entry_points  # reads the metadata of every package: only when needed

    found: dict[str, Any] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
        if entry.name in _own_cards(kind) or entry.name in found:
            other = _giver(found[entry.name]) if entry.name in found else "iufbench itself"
            raise InputError(
                f"strategy '{entry.name}' is provided by {_giver(entry)} and {other}: uninstall one of them"
            )
        found[entry.name] = entry
    return found


def _giver(entry: Any) -> str:
    return f"the installed package '{entry.dist.name}'" if entry.dist else f"entry point {entry.value}"


def _card_of(entry: Any) -> Path:
    """The card that an entry point refers to, located without importing its package."""
    package, *inner = entry.module.split(".")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *inner, f"{entry.name}.yaml")
        if path.is_file():
            return path
    raise InputError(
        f"strategy '{entry.name}' of {_giver(entry)}: there is no {entry.name}.yaml in '{entry.module}'"
    )


def find_card(kind: str, name: str) -> Path:
    """Find a card file by name, or by the path of the user's own ``.yaml`` file.

    Raises InputError with the closest name and all known names if there is no such card.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{kind} card {name}: no such file")
        return path
    own, plug_ins = _own_cards(kind), _plug_ins(kind)
    if name in own:
        return own[name]  # returns before a broken third-party package can raise
    if name in plug_ins:
        return _card_of(plug_ins[name])
    local = {path.stem: path for path in local_cards(kind)}
    if name in local:
        return local[name]
    known = [*own, *local, *plug_ins]
    raise InputError(
        f"unknown {kind} '{name}'{suggest(name, known)} "
        f"(known: {', '.join(known)}; see `iufbench list {_PLURALS[kind]}`)"
    )


def load_class(target: str, where: Path) -> Any:
    """Import ``module:attribute``, also from modules in the folder of the card ``where`` (a user's learner).

    Raises InputError with the path of the card, the original import error and its location.
    """
    module_name, _, attribute = MOVED.get(target, target).partition(":")
    if not attribute:
        raise InputError(f"{where}: learner must be 'module:Class', not '{target}'")
    folder = str(where.parent.resolve())
    # Only for a learner that may lie there: a later import of a missing package must find nothing in it.
    if not _is_installed(target) and folder not in sys.path:
        sys.path.append(folder)
    importlib.import_module("iufbench.support.framework")  # every learner derives from Avalanche
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        if lacks_memory(error):
            raise
        raise InputError(
            f"{where}: cannot import learner module '{module_name}': "
            f"{type(error).__name__}: {error}{_place(error)}"
        ) from error
    if not hasattr(module, attribute):
        raise InputError(
            f"{where}: module '{module_name}' has no '{attribute}'{suggest(attribute, dir(module))}"
        )
    return getattr(module, attribute)


def foreign_code(target: str, where: Path) -> str:
    """What importing a learner runs, in words; "" for a learner of iufbench or of an installed plug-in.

    Args:
        target: ``module:Class`` of the learner.
        where: Its card, in whose folder the module may lie. Nothing is imported.

    Returns:
        ``card.yaml imports 'mine:Mine' from /path/mine.py``.
    """
    if _is_installed(target):
        return ""
    top = _package(target)
    folder = where.parent.resolve()
    beside = [path for path in (folder / f"{top}.py", folder / top) if path.exists()]
    try:
        spec = importlib.util.find_spec(top) if top else None
    except (ValueError, ImportError):
        spec = None
    place = (
        (spec.origin or "".join(spec.submodule_search_locations or ()))
        if spec
        else "".join(map(str, beside[:1]))
    )
    return f"{where} imports {target!r} from {place or 'an unknown place'}"


@cache
def announce(text: str) -> None:
    """Print what ``foreign_code`` says to stderr, once."""
    print(f"note: {one_line(text)}", file=sys.stderr)


def _package(target: str) -> str:
    return MOVED.get(target, target).partition(":")[0].partition(".")[0]


def _is_installed(target: str) -> bool:
    """Whether a learner belongs to iufbench or to an installed plug-in."""
    package = _package(target)
    return package == "iufbench" or package in {_package(e.module) for e in _plug_ins("strategy").values()}


def _place(error: Exception) -> str:
    """File and line at which the imported module failed; empty if it failed before its first line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f" ({own[0].filename}, line {own[0].lineno})" if own else ""
