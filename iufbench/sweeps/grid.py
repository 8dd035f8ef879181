"""Grids: strategies, protocols, seeds and orders, expanded into requests for runs."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import find_protocol, protocol_cards
from iufbench.cards.registry import card_paths, shipped_grids
from iufbench.cards.request import Request
from iufbench.cards.strategies import load_strategy
from iufbench.cards.yaml_files import read_yaml
from iufbench.support.errors import InputError
from iufbench.support.fields import build, number, suggest

MOST_RUNS = 100_000
T = TypeVar("T")
OWN_ORDER = ("alphabetical", "dataset")  # the data set's own, which is alphabetical for MVTec AD and VisA
ALL = "all"
_AS_THEY_ARE = (
    *("synthetic", "data_seed", "preset", "backbone", "weights", "device", "threads"),
    *("precision", "step", "compile", "cache", "eval_unseen", "threshold", "calibration"),
)


@dataclass(frozen=True)
class Grid:
    """A grid as written, with the options that all of its runs share.

    ``protocols``: ids or aliases, or ``all`` (those that have a card). ``strategies``: names or card files,
    or ``all`` (those that are registered); ``name: [key=value, ...]`` adds settings to one strategy.
    ``seeds``: ``0-4``, ``0,3,7`` or a list. ``orders``: ``alphabetical`` (the data set's own), ``seed:1-3``,
    names of published orders, or lists of objects. The others are the long options of ``iufbench run``.
    """

    protocols: Any = ()
    strategies: Any = ()
    seeds: Any = "0"
    orders: Any = "alphabetical"
    description: str = ""
    synthetic: bool = False
    data_seed: int = number(0, at_least=0)
    data_root: str | None = None
    preset: Literal["paper", "quick", "dinov2_small", "dinov2_base", "wide_resnet50"] | None = None
    backbone: str | None = None
    weights: str | None = None
    device: str = "auto"
    threads: int | None = number(None, at_least=1)
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    step: Literal["auto", "eager", "graph"] = "auto"
    compile: bool = False
    cache: bool = True
    settings: list[str] | None = None
    eval_unseen: bool = False
    threshold: str | None = None
    calibration: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The values that differ from their defaults, recorded to detect changes of the grid."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name != "description" and getattr(self, f.name) != f.default
        }


def find_grid(name: str) -> Path:
    """Find a grid file by path, or a predefined one by name (``paper``, ``ablation``, ...)."""
    shipped = shipped_grids()
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    stem = name.removesuffix(".yaml")
    if stem in shipped:
        return shipped[stem]
    raise InputError(
        f"grid {name}: no such file{suggest(name, shipped)} (ready-made grids: {', '.join(shipped)})"
    )


def read_grid(path: Path | None, flags: Mapping[str, Any]) -> Grid:
    """Read a grid.

    Args:
        path: The file; None for a grid of command line options only.
        flags: Options that override the file's values; ``settings`` are appended to the file's.

    Returns:
        The grid.

    Raises:
        InputError: A key or value is invalid; the message names the file.
    """
    content = {} if path is None else read_yaml(path)
    where = str(path) if path else "command line"
    grid = build(Grid, {**content, **flags}, where)
    if "settings" not in flags:
        return grid
    own = build(Grid, content, where).settings or []
    return dataclasses.replace(grid, settings=[*own, *flags["settings"]])


def expand(grid: Grid, results: Path) -> list[Request]:
    """Expand a grid into runs.

    Args:
        grid: The grid.
        results: Folder of the results.

    Returns:
        One request per run, with the seed as the slowest index.

    Raises:
        InputError: Unknown protocols, strategies, seeds or orders; the message lists all errors.
    """
    mistakes: list[str] = []

    def collected(read: Callable[[Any], list[T]], value: Any) -> list[T]:
        try:
            return read(value)
        except InputError as error:
            mistakes.extend(str(error).split("\n"))
            return []

    protocols = collected(_protocols, grid.protocols)
    strategies = collected(_strategies, grid.strategies)
    seeds = collected(read_seeds, grid.seeds)
    orders = collected(read_orders, grid.orders)
    if grid.data_root is not None and len({_dataset_of(p) for p in protocols}) > 1:
        mistakes.append(
            "data_root is the folder of one data set, but the grid has several: set IUFBENCH_DATA to their "
            "parent folder"
        )
    report_all(mistakes)
    runs = len(seeds) * len(orders) * len(protocols) * len(strategies)
    if runs > MOST_RUNS:
        raise InputError(f"the grid has {runs:,} runs, the limit is {MOST_RUNS:,}")
    shared = {name: getattr(grid, name) for name in _AS_THEY_ARE}
    return [
        Request(
            protocol=protocol,
            strategy=strategy,
            seed=seed,
            order=order,
            order_seed=order_seed,
            settings=(*(grid.settings or ()), *own),
            data_root=None if grid.data_root is None else Path(grid.data_root),
            results=results,
            **shared,
        )
        for seed, (order, order_seed), protocol, (strategy, own) in itertools.product(
            seeds, orders, protocols, strategies
        )
    ]


def report_all(mistakes: Sequence[str]) -> None:
    """Raise one InputError that lists all distinct ``mistakes``, if there are any."""
    unique = list(dict.fromkeys(mistakes))
    if len(unique) == 1:
        raise InputError(unique[0])
    if unique:
        raise InputError(f"{len(unique)} errors, nothing was started:", *(f"  {m}" for m in unique))


def _dataset_of(protocol: str) -> str:
    return find_protocol(protocol)[0]


def _listed(value: Any, what: str, separator: str | None = ",") -> list[Any]:
    """A list, or comma-separated text, as a non-empty list."""
    if isinstance(value, str) and separator:
        value = [part.strip() for part in value.split(separator) if part.strip()]
    elif isinstance(value, (int, str)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{what} must be a list, not {value!r}")
    if not value:
        raise InputError(f"the grid is empty: it has no {what}")
    return list(value)


def _protocols(value: Any) -> list[str]:
    names = _listed(value, "protocols", separator=None)
    if names == [ALL]:
        return list(protocol_cards())
    return _checked(names, find_protocol, "protocol")


def _strategies(value: Any) -> list[tuple[str, tuple[str, ...]]]:
    entries = _listed(value, "strategies", separator=None)
    if entries == [ALL]:
        return [(name, ()) for name in card_paths("strategy")]
    pairs, mistakes = [], []
    for entry in entries:
        if isinstance(entry, Mapping) and len(entry) == 1:
            ((name, settings),) = entry.items()
        else:
            name, settings = entry, []
        if not isinstance(name, str) or not isinstance(settings, (list, tuple)):
            mistakes.append(f"strategies: must be a name or name: [key=value, ...], not {entry!r}")
        else:
            pairs.append((name, tuple(map(str, settings))))
    try:
        _checked([name for name, _ in pairs], load_strategy, "strategy")
    except InputError as error:
        mistakes.extend(str(error).split("\n"))
    if mistakes:
        raise InputError("\n".join(mistakes))
    return pairs


def _checked(names: list[Any], find: Callable[[str], Any], what: str) -> list[str]:
    mistakes = []
    for name in names:
        if not isinstance(name, str):
            mistakes.append(f"{what} must be a name, not {name!r}")
            continue
        try:
            find(name)
        except InputError as error:
            mistakes.append(str(error))
    if mistakes:
        raise InputError("\n".join(mistakes))
    return names


def read_seeds(value: Any) -> list[int]:
    """``0-4,7``, a number or a list of these, as numbers. Raises InputError."""
    return [seed for part in _listed(value, "seeds") for seed in _numbers(str(part), f"seeds: {part}")]


def read_orders(value: Any) -> list[tuple[tuple[str, ...] | None, int | None]]:
    """``alphabetical,seed:1-3`` or a list, as (objects or None, order seed or None). Raises InputError."""
    result: list[tuple[tuple[str, ...] | None, int | None]] = []
    for part in _listed(value, "orders"):
        if isinstance(part, (list, tuple)):
            result.append((tuple(map(str, part)), None))
        elif part in OWN_ORDER:
            result.append((None, None))
        elif isinstance(part, str) and part.startswith("seed:"):
            numbers = _numbers(part.removeprefix("seed:"), f"orders: {part}")
            result += [(None, k) for k in numbers]
        elif isinstance(part, str) and part in (named := _named_orders()):
            result.append(((part,), None))
        else:
            raise InputError(
                f"orders: {part!r} is not an order (allowed: alphabetical, seed:3, seed:1-3, "
                f"{', '.join(named)}, or in a file a list of objects)"
            )
    return result


def _named_orders() -> list[str]:
    """The names of all published orders that cards of data sets have."""
    return sorted({name for card in dataset_cards().values() for name in card.orders})


def _numbers(text: str, where: str) -> list[int]:
    match = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", text.strip())
    if match is None:
        raise InputError(f"{where}: must be a number such as 3 or a range such as 0-4")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise InputError(f"{where}: the range ends before it starts")
    if last - first >= MOST_RUNS:
        raise InputError(f"{where}: {last - first + 1:,} numbers, the limit is {MOST_RUNS:,} runs")
    return list(range(first, last + 1))
