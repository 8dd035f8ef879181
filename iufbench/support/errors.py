"""The two kinds of expected errors: invalid user input, and runtime failures."""

import re


def one_line(text: object) -> str:
    """Text with escaped control characters, which file names may contain.

    >>> one_line("a\\nb")
    'a\\\\nb'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def printable(text: object) -> str:
    """Text of several lines with control characters other than line ends escaped."""
    return "\n".join(map(one_line, str(text).split("\n")))


def shown(error: Exception) -> str:
    """An error as printed on a terminal: one line per argument, with escaped control characters.

    >>> shown(InputError("no strategy " + "x" * 5000))
    'no strategy xxxxxxxxxxxxxxxxxxxx... (5000 characters)'
    """
    text = "\n".join(map(one_line, error.args))
    return re.sub(r"\S{1000,}", lambda word: f"{word[0][:20]}... ({len(word[0])} characters)", text)


class _Lines(Exception):
    """An exception whose message consists of its arguments, one per line."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class InputError(_Lines):
    """Invalid user input; the message says what is wrong, where, and what to do. Exit code 2."""


class RunError(_Lines):
    """A failure at run time, such as a full disk or a corrupted run directory. Exit code 1."""
