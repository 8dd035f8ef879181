"""Rules for names of data sets and objects, which become file names, columns and command line arguments."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

# Reserved for devices on Windows, with any extension: results must be portable.
DEVICES = frozenset(
    {
        *("con", "prn", "aux", "nul", "conin$", "conout$"),
        *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789\u00b9\u00b2\u00b3"),
    }
)
# Read as missing values by pandas and other CSV readers.
MISSING = frozenset(
    {
        "na",
        "n/a",
        "#n/a",
        "#na",
        "<na>",
        "nan",
        "-nan",
        "null",
        "none",
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
    }
)
JOINERS = "\u200c\u200d"  # invisible, and part of words in Persian and Hindi and of emoji
# Nothing to see, although Unicode counts them as letters, marks or symbols (fillers, selectors, a blank).
BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | set(map(chr, range(0xFE00, 0xFE0F)))
UNSEEN = {ord(c): None for c in (*JOINERS, "\ufe0f")}  # the last one selects the emoji of a character
WINDOWS = frozenset(':*?"<>|')
COLUMNS = frozenset({"mean", "after", "mean of seen"})  # of tables, next to the objects
MOST_BYTES = 200


def problem_with_name(name: str) -> str | None:
    """The rule that a name of an object or data set violates, None for a valid one.

    >>> problem_with_name("metal_nut"), problem_with_name("01"), problem_with_name("\\u87ba\\u4e1d")
    (None, None, None)
    >>> problem_with_name("a,b")
    "no ',', which separates names in --order and --objects"
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return _not_text(os.fsencode(name))
    lower = name.casefold()
    rules = {
        "a name of at least one character": not name,
        f"at most {MOST_BYTES} bytes": size > MOST_BYTES,
        "no '/', '\\\\' and control characters": any(
            c in "/\\\\" or ord(c) < 32 or ord(c) == 127 for c in name
        ),
        "no invisible characters, such as marks of direction": any(
            (not c.isprintable() and c not in JOINERS) or c in BLANKS for c in name
        ),
        'no character that Windows refuses in names of files (: * ? " < > |)': not WINDOWS.isdisjoint(name),
        "no leading '.', which marks hidden files": name.startswith("."),
        "no leading or trailing space and no trailing '.'": name != name.strip() or name.endswith("."),
        "no ',', which separates names in --order and --objects": "," in name,
        "not a device name of Windows": lower.partition(".")[0].strip() in DEVICES,
        "not a word that CSV readers take for a missing value (NA, nan, None, null)": lower in MISSING,
        "not the name of a table column (mean, after)": _shown(lower) in COLUMNS,
    }
    return next((rule for rule, broken in rules.items() if broken), None)


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that differ only in case, composition of letters, joiners, ``_`` or spaces (tables
    show ``_`` as a space), None without such.

    >>> alike(["bolt", "nut", "Bolt"]), alike(["bolt", "bo\\u200clt"])
    (('bolt', 'Bolt'), ('bolt', 'bo\\u200clt'))
    """
    first: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFC", _shown(name.translate(UNSEEN))).casefold()
        key = unicodedata.normalize("NFC", folded)
        if first.setdefault(key, name) != name:
            return first[key], name
    return None


def _shown(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _not_text(raw: bytes) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return f"UTF-8 text, which the bytes {raw!r} are not"
    return f"characters of the current locale, and {raw!r} is UTF-8: set LC_ALL=C.UTF-8"


LONGEST_LINK = 500


def is_link(text: str) -> bool:
    """Whether a text may become a link in a page: a short http or https address without spaces."""
    plain = text.isprintable() and " " not in text and len(text) <= LONGEST_LINK
    return plain and text.startswith(("https://", "http://"))
