"""The order of execution: that of the grid, but a run waits while another one trains its base experience."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from iufbench.sweeps.base import has_base
from iufbench.sweeps.runs import PlannedRun


class Order:
    """The runs that have not been started.

    Args:
        runs: The runs to be executed.
        known: All runs of the sweep, finished ones included; their base experiences can be reused.
        share: Train a base experience that several runs have in common only once (``base.py``).
    """

    def __init__(self, runs: Sequence[PlannedRun], known: Sequence[PlannedRun], share: bool) -> None:
        self._waiting = {run.number: run for run in runs}
        self._alike: dict[str, list[PlannedRun]] = {}
        if share:
            for run in known:
                if run.base:
                    self._alike.setdefault(run.base, []).append(run)
        self._training: dict[str, int] = {}

    def __iter__(self) -> Iterator[PlannedRun]:
        """The runs that have not been taken yet."""
        return iter(self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self, fits: Callable[[PlannedRun], bool]) -> PlannedRun | None:
        """Take the next run that can start now; None if all remaining ones have to wait.

        A run that does not fit blocks the ones after it; otherwise large runs might never start.
        """
        for run in self._waiting.values():
            if self._training.get(run.base, 0) and not self.bases(run):
                continue
            if not fits(run):
                return None
            del self._waiting[run.number]
            if run.base in self._alike:
                self._training[run.base] = self._training.get(run.base, 0) + 1
            return run
        return None

    def over(self, run: PlannedRun) -> None:
        """Note that a run has ended, successfully or not."""
        if run.base in self._alike:
            self._training[run.base] -= 1

    def bases(self, run: PlannedRun) -> list[Path]:
        """Run directories that hold the run's base experience now."""
        return [
            other.path for other in self._alike.get(run.base, ()) if other is not run and has_base(other.path)
        ]
