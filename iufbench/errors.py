"""The two ways a command ends badly without a bug: the user's input, or the world."""


class InputError(Exception):
    """The user's input is wrong: the message says what, where and what to do. Exit code 2."""


class RunError(Exception):
    """Something that should have worked did not (disk full, damaged run). Exit code 1."""
