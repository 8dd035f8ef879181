"""Folders that iufbench makes for itself."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from iufbench.support.errors import InputError


def cache_folder() -> Path:
    """Where things that can be made again are kept: ``$IUFBENCH_CACHE``, else ``~/.cache/iufbench``.

    Where the home folder cannot be written (or there is none): a folder in the system's temporary folder that
    only this user can enter, made by this call.

    Raises:
        InputError: that folder exists and is not private.
    """
    if "IUFBENCH_CACHE" in os.environ:
        return Path(os.environ["IUFBENCH_CACHE"])
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without home
        return _private_folder()
    if os.access(home if home.exists() else home.parent, os.W_OK):
        return home / "iufbench"
    return _private_folder()


def _private_folder() -> Path:
    """``iufbench-<uid>`` in the temporary folder: others can guess the name, so it must be found private."""
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    folder = Path(tempfile.gettempdir()) / f"iufbench-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=False)
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"no folder for caches: {error}; set IUFBENCH_CACHE to one") from error
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise InputError(
            f"{folder} is not a private folder of this user: remove it, or set IUFBENCH_CACHE to another one"
        )
    return folder
