"""Image files given by the user: files, folders, patterns, and lists on standard input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from os import PathLike
from pathlib import Path

from iufbench.data.images import read_header
from iufbench.data.readers.reading import IMAGE_SUFFIXES, contents
from iufbench.support.errors import InputError
from iufbench.support.files import PathOrText


def given_images(paths: PathOrText | Iterable[PathOrText]) -> list[Path]:
    """Expand files, folders and patterns to image files in the given order; folders recursively, by path.

    Headers are read, so that an invalid file is reported before any image is scored. In folders, hidden files
    and files without an image suffix are ignored.

    Args:
        paths: One or several files, folders, or patterns as the shell's (``*``, ``?``, ``[0-9]``; ``**`` for
            folders at any depth).

    Returns:
        The files, at least one.

    Raises:
        InputError: A path does not exist or is not an image; a folder has no images; a pattern matches
            nothing; there are no paths.
    """
    wanted = [paths] if isinstance(paths, (str, PathLike)) else paths
    found: list[Path] = []
    for path in (match for given in wanted for match in _matches(Path(given))):
        if os.path.isdir(path):  # False, not an error, for a name that no file can have
            below = _below(path)
            if not below:
                raise InputError(f"{path} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            found += below
        else:
            found.append(path)
    if not found:
        raise InputError("no images given: name files or folders, or - for a list on standard input")
    for path in found:
        read_header(path)
    return found


def listed_images(lines: Iterable[str]) -> list[Path]:
    """Read a list of files, one per line; empty lines are skipped.

    Raises InputError with the line of a file that does not exist.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        name = line.rstrip("\r\n")
        if not name.strip():
            continue
        if not os.path.exists(name):
            raise InputError(f"standard input, line {number}: {name} does not exist")
        found.append(Path(name))
    return found


def _matches(path: Path) -> list[Path]:
    """The path itself, or what it matches if it is a pattern and not the name of a file."""
    if not has_magic(str(path)) or os.path.lexists(path):
        return [path]
    found = sorted(glob(str(path), recursive=True))
    if not found:
        raise InputError(f"{path} does not exist, and matches nothing as a pattern")
    return list(map(Path, found))


def _below(folder: Path) -> Sequence[Path]:
    files, folders = contents(folder)
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    return sorted([*images, *(path for sub in folders if not sub.is_symlink() for path in _below(sub))])
