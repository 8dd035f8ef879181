"""Layered cards: merging a card over the card it extends, and tracking the source of each value."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]
SECTIONS = ("presets", "per_dataset", "per_protocol")


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``top`` over ``base`` recursively; lists and other values are replaced as a whole.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    result = copy.deepcopy(dict(base))
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def leaves(content: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is not a mapping, with its path of keys.

    >>> list(leaves({"a": {"b": 1}, "c": [2]}))
    [(('a', 'b'), 1), (('c',), [2])]
    """
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def extended(inherited: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a card's own content over the content it extends.

    Top-level keys of the card take precedence over inherited presets and inherited overrides for a data set
    or protocol; the card's own presets take precedence over both.

    >>> extended({"lr": 1, "presets": {"quick": {"lr": 2, "epochs": 3}}}, {"lr": 4})
    {'lr': 4, 'presets': {'quick': {'epochs': 3}}}
    """
    said = [path for path, _ in leaves({k: v for k, v in own.items() if k not in SECTIONS})]
    kept: dict[str, Any] = dict(inherited)
    for section in SECTIONS:
        if isinstance(kept.get(section), Mapping):
            kept[section] = {name: _without(block, said) for name, block in kept[section].items()}
    return merge(kept, own)


def _without(block: Any, paths: Sequence[Path]) -> Any:
    """The block without the values at ``paths`` and without mappings that become empty."""
    for path in paths:
        if not isinstance(block, Mapping) or path[0] not in block:
            continue
        inner = _without(block[path[0]], [path[1:]]) if path[1:] else {}
        rest = {key: value for key, value in block.items() if key != path[0]}
        block = rest if inner == {} else {**rest, path[0]: inner}
    return block


def annotated(content: Mapping[str, Any], sources: Mapping[Path, str], above: Path = ()) -> Iterator[str]:
    """The content as lines of YAML, each value with its source card as a comment."""
    import yaml

    for key, value in content.items():
        path, indent = (*above, key), "  " * len(above)
        name = yaml.safe_dump(key, allow_unicode=True).removesuffix("\n...\n").strip()
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from annotated(value, sources, path)
        else:
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
            source = f"  # {sources[path]}" if path in sources else ""
            yield f"{indent}{name}: {text.removesuffix(chr(10)).removesuffix('...').rstrip()}{source}"
