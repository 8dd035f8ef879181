"""Folders that iufbench makes for itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where things that can be made again are kept: ``$IUFBENCH_CACHE``, else ``~/.cache/iufbench``."""
    if "IUFBENCH_CACHE" in os.environ:
        return Path(os.environ["IUFBENCH_CACHE"])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if os.access(home if home.exists() else home.parent, os.W_OK):
        return home / "iufbench"
    return Path(tempfile.gettempdir()) / f"iufbench-{os.getuid()}"
