"""The two kinds of expected errors: invalid user input, and runtime failures."""


def one_line(text: object) -> str:
    """Text with its control characters spelled out: names of files may hold line breaks and worse."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def printable(text: object) -> str:
    """Text of several lines with its control characters spelled out, but for the line ends."""
    return "\n".join(map(one_line, str(text).split("\n")))


def shown(error: Exception) -> str:
    """What a terminal shows of an error: one line per argument, each free of control characters."""
    return "\n".join(map(one_line, error.args))


class _Lines(Exception):
    """Its message is its arguments, one per line."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class InputError(_Lines):
    """The user's input is wrong: the message says what, where and what to do. Exit code 2."""


class RunError(_Lines):
    """Something that should have worked did not (disk full, damaged run). Exit code 1."""
