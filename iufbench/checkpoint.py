"""One file per finished experience: what a strategy needs to go on, or to be looked at again.

Written to a temporary name, flushed, renamed; loaded without unpickling anything but tensors and plain
values. Random states are not stored, because every experience starts from its own derived seed.
"""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from iufbench import selection
from iufbench.errors import RunError
from iufbench.files import write_bytes
from iufbench.maps import MAPS
from iufbench.rundir import BASELINE

FOLDER = "checkpoints"


def checkpoint_path(run: Path, experience: int) -> Path:
    """Where the state after ``experience`` (from 0) is kept."""
    return run / FOLDER / f"experience{experience}.pt"


def finished_experiences(run: Path) -> int:
    """How many experiences in a row, from the first, have their checkpoint."""
    number = 0
    while checkpoint_path(run, number).is_file():
        number += 1
    return number


def save_checkpoint(run: Path, experience: int, strategy: Any) -> None:
    """Store ``strategy.state()``: tensors, numbers, text, lists and dicts. RunError when the disk refuses."""
    buffer = io.BytesIO()
    torch.save(strategy.state(), buffer)
    write_bytes(checkpoint_path(run, experience), buffer.getvalue())


def load_checkpoint(run: Path, experience: int, strategy: Any) -> None:
    """Put a strategy back to where it stood after ``experience``. RunError when the file is damaged."""
    path = checkpoint_path(run, experience)
    try:
        state = torch.load(path, map_location=strategy.device, weights_only=True)
        strategy.restore(state)
    except pickle.UnpicklingError as error:  # torch's own words advise to run whatever the file holds
        raise RunError(f"{path} is damaged (no checkpoint); --restart runs the stream anew") from error
    except (OSError, EOFError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} is damaged ({reason}); --restart runs the stream anew") from error


def remove_state(run: Path) -> None:
    """Forget what a run directory holds of an earlier training: checkpoints, maps, baseline, diagnosis."""
    for folder in (FOLDER, MAPS, selection.FOLDER):
        if (run / folder).is_dir():
            shutil.rmtree(run / folder)
    (run / BASELINE).unlink(missing_ok=True)
    (run / selection.SELECTION).unlink(missing_ok=True)
