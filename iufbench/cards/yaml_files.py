"""Cards as YAML: plain values, no duplicate keys, no merge keys, limits on the size of a file."""

from __future__ import annotations

import stat
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from iufbench.support.errors import InputError

CARD_BYTES = 1 << 20  # cards are a page or two; megabytes of YAML take minutes to parse
CARD_VALUES = 100_000  # aliases repeat values: a page can stand for billions

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}


class _Loader(yaml.SafeLoader):
    """Plain values only: no duplicate keys, no dates (2024-10-01 stays text), no merging, no other tags."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML declares it as it is)
        first: [(tag, rule) for tag, rule in rules if tag.rpartition(":")[2] not in ("timestamp", "merge")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: build for tag, build in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in _PLAIN
    }

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)  # makes a recursive alias an error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value for key in keys]
        for place, key in enumerate(keys):
            if key.value in names[:place]:
                problem = f"duplicate key '{key.value}'"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text. Raises InputError with ``where`` and the line."""
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "is not valid YAML"
        raise InputError(f"{where}{line}: {problem}") from error
    except ValueError as error:  # an integer with thousands of digits, or text tagged as a number
        raise InputError(f"{where}: a number cannot be read ({error})") from error
    except RecursionError as error:
        raise InputError(f"{where}: is nested too deeply") from error
    rest, count = [value], 0
    while rest:
        one = rest.pop()
        count += 1
        if count > CARD_VALUES:
            raise InputError(f"{where}: has more than {CARD_VALUES:,} values, with those that aliases repeat")
        rest += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return value


@lru_cache(maxsize=256)
def _parsed(text: str, where: str) -> Any:
    """``parse_yaml``, once for each text: a card is read again for every card that extends it."""
    return parse_yaml(text, where)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from a file. Raises InputError with file and line."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device may never end
            raise InputError(f"{path}: is not a regular file")
        if status.st_size > CARD_BYTES:
            raise InputError(f"{path}: has {status.st_size} bytes; the limit for a card is {CARD_BYTES}")
        content = deepcopy(_parsed(path.read_text(encoding="utf-8"), str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of keys")
    for key in content:
        if not isinstance(key, str):
            raise InputError(f"{path}: the key {key!r} must be text")
    return content
