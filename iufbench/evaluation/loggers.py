"""The Avalanche loggers of a run, by their command-line names."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from avalanche.logging import TensorboardLogger, TextLogger
from avalanche.logging import WandBLogger as StockWandBLogger
from torch.utils.tensorboard import SummaryWriter

from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest

NAMES = ("text", "tensorboard", "wandb")
FOLDERS = ("tensorboard", "wandb")  # below a run directory; wandb makes its own


class WandBLogger(StockWandBLogger):
    """Avalanche's logger for Weights & Biases, compatible with current versions of ``wandb``.

    Avalanche 0.6 uses ``wandb.util.generate_id`` and ``wandb.viz.CustomChart``, which have been removed.
    """

    def import_wandb(self) -> None:
        import wandb

        charts = wandb.plot.CustomChart if hasattr(wandb, "plot") else ()
        self.wandb = _With(
            wandb,
            util=_With(wandb.util, generate_id=wandb.sdk.lib.runid.generate_id),
            viz=SimpleNamespace(CustomChart=charts),
        )


class _With:
    """An object with some attributes replaced."""

    def __init__(self, inner: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ResumableTensorboardLogger(TensorboardLogger):
    """Appends to the log folder of an earlier process of the same run.

    ``after``: events after this training iteration are purged, because they will be logged again; None for a
    new run.
    """

    def __init__(self, folder: Path, after: int | None) -> None:
        self._purge = None if after is None else after + 1
        super().__init__(folder)

    def _make_writer(self, tb_log_dir: Any, filename_suffix: str) -> SummaryWriter:
        return SummaryWriter(tb_log_dir, purge_step=self._purge, filename_suffix=filename_suffix)


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for an unknown logger name."""
    for name in names:
        if name not in NAMES:
            raise InputError(f"unknown logger '{name}'{suggest(name, NAMES)} (known: {', '.join(NAMES)})")


def make_loggers(names: Sequence[str], run: Path, title: str, config: Any, after: int | None) -> list[Any]:
    """Create the loggers of one run.

    Args:
        names: Any of ``text`` (standard error), ``tensorboard`` (the folder ``tensorboard`` in the run
            directory) and ``wandb`` (project ``iufbench``; offline when ``WANDB_MODE=offline``).
        run: The run directory.
        title: The run's id, shown as its title.
        config: The run's configuration as W&B shows it.
        after: Training iterations completed before a resumed run; None for a new run.

    Returns:
        The loggers, in the order of ``names`` without repetitions.

    Raises:
        InputError: A name is unknown.
        RunError: Weights & Biases cannot be reached.
    """
    check_names(names)
    made: list[Any] = []
    for name in dict.fromkeys(names):
        if name == "text":
            made.append(TextLogger(sys.stderr))
        elif name == "tensorboard":
            made.append(ResumableTensorboardLogger(run / FOLDERS[0], after))
        else:
            identity = hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:16]
            given = {"id": identity, "resume": "allow"}
            try:
                logger = WandBLogger("iufbench", title, dir=run, config=config, save_code=False, params=given)
            except Exception as error:  # of many kinds: no account, no network
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise RunError(f"wandb: {reason}; WANDB_MODE=offline logs below the run directory") from error
            made.append(logger)
    return made


def close(loggers: list[Any]) -> None:
    """Flush and close the loggers."""
    for logger in loggers:
        if isinstance(logger, TensorboardLogger):
            logger.writer.close()
        elif isinstance(logger, StockWandBLogger):
            logger.wandb.finish()
