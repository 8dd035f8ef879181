"""Progress on stderr: bars on a terminal or in a notebook, plain lines elsewhere, nothing with ``-q``."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm.auto import tqdm

from iufbench.support.errors import one_line, printable


class Bar:
    """A progress bar. ``advance(n, loss=0.1)`` moves it; without a terminal, closing it prints a line."""

    def __init__(self, label: str, total: int, unit: str, live: bool, lines: bool) -> None:
        label = one_line(label)
        self._label, self._total, self._unit, self._lines = label, total, unit, lines
        self._done, self._start, self._notes = 0, time.perf_counter(), ""
        self._tqdm = (
            tqdm(total=total, desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True, leave=True)
            if live
            else None
        )

    def advance(self, n: int = 1, **notes: Any) -> None:
        self._done += n
        if notes:
            self._notes = ", ".join(f"{k} {v:.4g}" for k, v in notes.items())
        if self._tqdm is not None:
            if notes:
                self._tqdm.set_postfix_str(self._notes, refresh=False)
            self._tqdm.update(n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        seconds = time.perf_counter() - self._start
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._lines and kind is None:
            rate = self._done / seconds if seconds > 0 else 0.0
            notes = f", {self._notes}" if self._notes else ""
            unit = self._unit.strip()
            print(
                f"{self._label}: {self._done} {unit} in {seconds:.1f} s ({rate:.0f} {unit}/s){notes}",
                file=sys.stderr,
                flush=True,
            )


class Progress:
    """Prints messages and bars. ``verbosity``: -1 quiet, 0 normal, 1 verbose."""

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self._live = (sys.stderr.isatty() or _in_notebook()) and verbosity >= 0

    def bar(self, label: str, total: int, unit: str = " images") -> Bar:
        return Bar(label, total, unit, self._live, self.verbosity >= 0)

    def say(self, text: str, level: int = 0) -> None:
        """Print a message; ``level`` 1 only with ``-v``."""
        if self.verbosity >= level:
            (tqdm.write if self._live else _print)(printable(text), file=sys.stderr)

    def warn(self, text: str) -> None:
        """Print a warning, also when quiet."""
        (tqdm.write if self._live else _print)(f"warning: {printable(text)}", file=sys.stderr)


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel: bars are widgets there, or text without ipywidgets."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


def _print(text: str, file: Any) -> None:
    print(text, file=file, flush=True)


class TrainingBar:
    """An Avalanche plugin (by its callbacks) that moves a bar and shows the loss.

    ``epochs_done``: epochs trained before the first one it observes.
    """

    def __init__(self, progress: Progress, label: str, total: int, epochs_done: int = 0) -> None:
        self._progress = progress
        self._bar = progress.bar(label, total)
        self._epoch, self._due = epochs_done, 0.0

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        notes = {}
        if now >= self._due:  # reading a loss synchronises with the device
            self._due, notes = now + 0.2, {"loss": float(strategy.loss.detach())}
        self._bar.advance(len(strategy.mbatch), **notes)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self._epoch += 1
        if strategy.training_log:
            row = strategy.training_log[-1]
            terms = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
            self._progress.say(f"  epoch {self._epoch}: {terms}", level=1)

    def __enter__(self) -> TrainingBar:
        self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)
