"""The cache folder."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from iufbench.support.errors import InputError


def cache_folder() -> Path:
    """The folder for data that can be recomputed: ``$IUFBENCH_CACHE``, else ``~/.cache/iufbench``.

    Without a writable home folder, a private folder is created in the system's temporary folder.

    Raises:
        InputError: The private folder cannot be created, or it exists and is not private.
    """
    if "IUFBENCH_CACHE" in os.environ:
        return Path(os.environ["IUFBENCH_CACHE"])
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home folder
        return _private_folder()
    if os.access(home if home.exists() else home.parent, os.W_OK):
        return home / "iufbench"
    return _private_folder()


def _private_folder() -> Path:
    """``iufbench-<uid>`` in the temporary folder, with owner and mode checked: others can guess its name."""
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    folder = Path(tempfile.gettempdir()) / f"iufbench-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=False)
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"cannot create a cache folder: {error}; set IUFBENCH_CACHE") from error
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise InputError(
            f"{folder} is not private to this user: remove it, or set IUFBENCH_CACHE to another folder"
        )
    return folder
