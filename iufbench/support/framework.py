"""Importing this module imports Avalanche without its side effects on the user's terminal and home folder.

Every module that imports Avalanche imports this one first.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _import_avalanche() -> None:
    """Without the warning about solvers that only Avalanche's GEM strategy needs.

    The import writes ``~/.avalanche/config.json``, which must not stop a run if the home folder is read-only
    (containers, clusters).
    """
    with warnings.catch_warnings(), _writable_home():
        warnings.filterwarnings("ignore", message="no QP solver found")
        importlib.import_module("avalanche")


@contextmanager
def _writable_home() -> Iterator[None]:
    """Set HOME to a temporary folder if Avalanche's folder cannot be created in it."""
    folder = Path(os.path.expanduser("~/.avalanche"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if usable:
        yield
        return
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HOME"] = temporary
        try:
            yield
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before


_import_avalanche()
