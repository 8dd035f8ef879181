"""Strict conversion of plain mappings (YAML, command line) to typed dataclasses.

Unknown keys, wrong types and invalid values are errors that name the source, the key and the allowed values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from iufbench.support.errors import InputError

T = TypeVar("T")
LARGEST = 2**63 - 1  # the largest integer that torch and numpy support


def suggest(name: str, known: Iterable[str]) -> str:
    """A suggestion for an error message: the closest known name, or an empty string.

    >>> suggest("iff", ["iuf", "uniad"])
    "; did you mean 'iuf'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def number(default: Any = dataclasses.MISSING, **bounds: float) -> Any:
    """A dataclass field with bounds: ``at_least``, ``at_most``, ``above``, ``below``."""
    return dataclasses.field(default=default, metadata=bounds)


def build(cls: type[T], mapping: Any, where: str, key: str = "") -> T:
    """Build a dataclass from a mapping.

    Args:
        cls: The dataclass.
        mapping: Its fields by name.
        where: Source of the mapping (a file, ``--set``), named in errors.
        key: Dotted path to the mapping, named in errors.

    Returns:
        An instance of ``cls``.

    Raises:
        InputError: A key is unknown or missing, or a value is invalid.
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: {key or 'the file'} must be a mapping of keys, not {_shown(mapping)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    prefix = f"{key}." if key else ""
    for name in mapping:
        if name not in fields:
            allowed = ", ".join(sorted(fields))
            hint = suggest(f"{prefix}{name}", [prefix + field for field in fields])
            raise InputError(f"{where}: unknown key '{prefix}{name}'{hint} (allowed: {allowed})")
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = convert(hints[name], mapping[name], where, prefix + name, field.metadata)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: the key '{prefix}{name}' is missing")
    return cls(**values)


def convert(hint: Any, value: Any, where: str, key: str, bounds: Mapping[str, float]) -> Any:
    """Convert a value strictly.

    Args:
        hint: The type: int, float, bool, str, Literal, list, tuple, dict, a dataclass or a union of these.
        value: The value.
        where: Source of the value, named in errors.
        key: Dotted path to the value, named in errors.
        bounds: Bounds of ``number``, for numbers.

    Returns:
        The converted value.

    Raises:
        InputError: The value has another type or is out of bounds.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(args, value, where, key, bounds)
    if origin is typing.Literal:
        if not any(value == allowed and type(value) is type(allowed) for allowed in args):
            allowed = ", ".join(map(str, args))
            raise InputError(f"{where}: {key} must be one of {allowed}, not {_shown(value)}")
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, key)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: {key} must be a list, not {_shown(value)}")
        if not value:
            raise InputError(f"{where}: {key} must not be an empty list")
        items = [convert(args[0], v, where, f"{key}[{i}]", bounds) for i, v in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: {key} must be a mapping, not {_shown(value)}")
        of = args[1] if args else typing.Any
        return {k: convert(of, v, where, f"{key}.{k}", bounds) for k, v in value.items()}
    if hint is typing.Any:
        return value
    return _within(_scalar(hint, value, where, key), where, key, bounds)


def _convert_union(args: tuple, value: Any, where: str, key: str, bounds: Mapping[str, float]) -> Any:
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    if len(choices) == 1:
        return convert(choices[0], value, where, key, bounds)
    wants_list = isinstance(value, (list, tuple))
    for choice in choices:
        if (typing.get_origin(choice) in (list, tuple)) == wants_list:
            return convert(choice, value, where, key, bounds)
    raise InputError(f"{where}: {key} has the wrong type: {_shown(value)}")


def _scalar(hint: Any, value: Any, where: str, key: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > LARGEST:
            raise InputError(f"{where}: {key} is {_shown(value)}, which is too large")
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-4 (without a dot) as text, although a number is meant.
        try:
            result = float(value)
        except (TypeError, ValueError, OverflowError):
            result = math.nan
        if math.isfinite(result):
            return result
    names = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
    raise InputError(f"{where}: {key} must be {names.get(hint, hint)}, not {_shown(value)}")


_CHECKS = {
    "at_least": (lambda v, b: v >= b, ">="),
    "at_most": (lambda v, b: v <= b, "<="),
    "above": (lambda v, b: v > b, ">"),
    "below": (lambda v, b: v < b, "<"),
}


def _within(value: Any, where: str, key: str, bounds: Mapping[str, float]) -> Any:
    for name, bound in bounds.items():
        holds, sign = _CHECKS[name]
        if not holds(value, bound):
            raise InputError(f"{where}: {key} must be {sign} {bound}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
