"""The publishable part of a run: everything except file locations on a machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from iufbench.reporting.record import RunRecord, record_from
from iufbench.reporting.store import Run

PLACES = ("data_root", "results", "lists", "card", "init_from")  # of a request
# A path that starts at the root of a disk or of a home, or with dots. All but its last part may hold spaces.
_PART = r"(?:[^\s\\/'\"`,;()\[\]{}<>|]|(?<=\w)'(?=\w))+"
_START = r"(?<![\w.~/\\-])(?:file:|~[\w-]*|\.\.?|[A-Za-z]:)?"
_PATH = rf"{_START}(?:[\\/]+{_PART}(?:\ {_PART})*(?=[\\/]))*[\\/]+{_PART}"
_URL_OR_PATH = re.compile(rf"(?P<url>https?://\S+)|(?P<path>{_PATH})")


def without_paths(text: str, known: Sequence[str] = ()) -> str:
    """Reduce every path in a text to its last part.

    ``known``: strings that are known to be paths.

    >>> without_paths("masks from /home/me/my parts/masks; see https://example.org/a/b")
    'masks from …/masks; see https://example.org/a/b'
    """
    if "/" not in text and "\\" not in text and not any(path in text for path in known):
        return text
    for path in sorted(known, key=len, reverse=True):
        if path in text:
            text = text.replace(path, _last(path))
    return _URL_OR_PATH.sub(lambda m: m[0] if m["url"] else _last(m["path"]), text)


def _last(path: str) -> str:
    """``…/name``."""
    name = (PureWindowsPath if "\\" in path else PurePosixPath)(path).name
    return f"…/{name}"


def public_run(run: Run) -> Run:
    """A copy of the run whose record has no file locations; its numbers are unchanged.

    The folders of the request and of the data, environment variables and unknown keys are removed; paths in
    other texts are reduced to their last part.
    """
    record = run.record
    known = known_places(record)
    plain = replace(record, other={}).as_dict()
    plain["dataset"]["root"] = None
    plain["request"] = {k: v for k, v in plain.get("request", {}).items() if k not in PLACES}
    for environment in (plain.get("environment"), (plain.get("shared_base") or {}).get("environment")):
        if environment:
            environment["variables"] = {}
    plain["command"] = _command(record.command, known)
    cleaned = _cleaned(plain, known)
    cleaned["id"] = record.id  # of names without separators, which are checked when a record is read
    for part, key in (
        ("dataset", "name"),
        ("strategy", "name"),
        ("protocol", "id"),
        ("protocol", "experiences"),
    ):
        cleaned[part][key] = plain[part][key]
    return Run(run.path, record_from(cleaned, run.path), run.measured)


def known_places(record: RunRecord) -> list[str]:
    """Every path field of a record, as written and resolved."""
    lists = record.request.get("lists") or ()
    found = [record.dataset.root, *(record.request.get(k) for k in PLACES if k != "lists")]
    found += lists if isinstance(lists, (list, tuple)) else [lists]
    texts = {text for text in found if isinstance(text, str) and _is_path(text)}
    home = str(Path.home())
    return [*texts, *([home] if len(home) > 1 else [])]


def _is_path(text: str) -> bool:
    """Whether a text has several parts: a single name is not private, and may be a word of another text."""
    return "/" in text.strip("/.") or "\\" in text or text.startswith(("/", "~"))


def _command(command: str | None, known: Sequence[str]) -> str | None:
    """A command line, word by word: a quoted path may have any characters."""
    if command is None:
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    return shlex.join(map(_word, (without_paths(word, known) for word in words)))


def _word(word: str) -> str:
    """A word of a command line; remainders of paths with unusual characters are removed, too."""
    key, mark, value = word.rpartition("=")
    start = key + mark
    return word if "://" in word or "/" not in value or value.startswith("…/") else start + _last(value)


def _cleaned(value: Any, known: Sequence[str]) -> Any:
    if isinstance(value, str):
        return without_paths(value, known)
    if isinstance(value, dict):
        return {without_paths(k, known): _cleaned(v, known) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(item, known) for item in value]
    return value


def has_places(names: Iterable[str]) -> bool:
    """Whether one of the names of images is more than a path below the data root."""
    return any(name.startswith(("/", "\\", "~")) or ".." in name or name[1:2] == ":" for name in names)
