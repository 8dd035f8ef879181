"""Tracks the state of every run and updates the sweep's files and the display."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from iufbench.sweeps.estimate import Costs, Estimate
from iufbench.sweeps.record import INTERRUPTED, RUNNING, Record, event, read_live
from iufbench.sweeps.runs import COMPLETE, FAILED, PlannedRun
from iufbench.sweeps.screen import Screen, duration


class Board:
    """Engines call ``started``, ``finished`` and, about once a second, ``tick``.

    Args:
        runs: The runs to be executed.
        costs: Costs of finished runs, for estimates.
        record: The folder of the sweep.
        screen: Where progress is shown.
        jobs: Number of parallel runs.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], costs: Costs, record: Record, screen: Screen, jobs: int
    ) -> None:
        self.record, self.screen = record, screen
        self._costs, self._jobs, self._total = costs, jobs, len(runs)
        self._estimates: dict[int, Estimate] = {}
        self.running: dict[int, PlannedRun] = {}
        self.states: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self._begun: dict[int, float] = {}
        self._start = time.time()
        self._work_left = 0.0
        self._unknown = 0
        self._drawn = 0.0
        for run in runs:
            self._account(run, 1)

    def memory_of(self, run: PlannedRun) -> float:
        """MiB that the run is expected to need."""
        return self.estimate(run).memory_mb

    def estimate(self, run: PlannedRun) -> Estimate:
        if run.number not in self._estimates:
            self._estimates[run.number] = self._costs.of(run)
        return self._estimates[run.number]

    def started(self, run: PlannedRun, node: str = "") -> None:
        self.running[run.number], self._begun[run.number] = run, time.time()
        self.record.write(run, event(RUNNING, node=node))
        self.screen.say(f"started  {run.label}{f' on {node}' if node else ''}", level=1)

    def finished(
        self, run: PlannedRun, state: str, seconds: float = 0.0, error: str = "", node: str = ""
    ) -> None:
        """Record that a run has ended; ``state`` is complete, failed or interrupted."""
        self.running.pop(run.number, None)
        self._begun.pop(run.number, None)
        self.record.write(run, event(state, node=node, seconds=round(seconds, 2), error=error))
        self.record.live(run).unlink(missing_ok=True)
        self.states[state] += 1
        self._account(run, -1)
        if state == FAILED:
            self.failures[run.id] = error
        if state == INTERRUPTED:
            return
        place = f" on {node}" if node else ""
        reason = f": {error}" if error else ""
        self.screen.say(
            f"[{self.done}/{self._total}] {state} {run.label}{place} in {duration(seconds)}{reason}"
            f"{self._outlook()}"
        )

    @property
    def done(self) -> int:
        return self.states[COMPLETE] + self.states[FAILED]

    @property
    def interrupted(self) -> int:
        return self.states[INTERRUPTED]

    def warn(self, text: str) -> None:
        self.screen.say(f"warning: {text}")

    def tick(self) -> None:
        """Redraw the table, at most twice per second."""
        if self.screen.live and time.monotonic() - self._drawn > 0.5:
            self._drawn = time.monotonic()
            lives = {number: read_live(self.record.live(run)) for number, run in self.running.items()}
            lines = [self._line(run, lives[number]) for number, run in self.running.items()]
            self.screen.draw(lines, self._headline() + total_rate(lives.values()))

    def close(self) -> None:
        self.screen.close()

    def _account(self, run: PlannedRun, sign: int) -> None:
        seconds = self.estimate(run).seconds
        if seconds is None:
            self._unknown += sign
        else:
            self._work_left += sign * seconds
        if sign < 0:
            self._estimates.pop(run.number, None)

    def _outlook(self) -> str:
        left = self._total - self.done
        seconds = self.seconds_left()
        return "" if not left or seconds is None else f"; {left} left, about {duration(seconds)}"

    def seconds_left(self) -> float | None:
        """Estimated time to completion, from the durations of finished runs, else from the pace so far."""
        left = self._total - self.done
        if left and not self._unknown:
            running = sum(time.time() - begun for begun in self._begun.values())
            return max(self._work_left - running, 0.0) / self._jobs
        if not self.done:
            return None
        return (time.time() - self._start) / self.done * left

    def _headline(self) -> str:
        left = self.seconds_left()
        parts = [f"{self.done}/{self._total} done", f"{len(self.running)} running"]
        if self.failures:
            parts.append(f"{len(self.failures)} FAILED")
        parts.append(f"{duration(time.time() - self._start)} elapsed")
        if left is not None and self.done < self._total:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _line(self, run: PlannedRun, live: dict[str, Any]) -> dict[str, Any]:
        return live_row(run.label, live, time.time() - self._begun[run.number], self.estimate(run).seconds)


def total_rate(lives: Iterable[dict[str, Any]]) -> str:
    """Images per second of all runs that are going through images now, as the end of a headline."""
    rates = [live["images_per_s"] for live in lives if live.get("images_per_s")]
    return f", {sum(rates):.0f} images/s in all" if rates else ""


def live_row(label: str, live: dict[str, Any], passed: float, expected: float | None) -> dict[str, str]:
    """One row of the table: run, experience, phase, loss, images per second, times, node."""
    experience = f"{live['experience']}/{live['experiences']}" if "experience" in live else ""
    share = f" {live['done'] / live['total']:.0%}" if live.get("total") else ""
    rate, loss = live.get("images_per_s"), live.get("loss")
    return {
        "run": label,
        "exp.": experience,
        "phase": str(live.get("phase", "starting")).partition(" ")[0] + share,
        "loss": "" if loss is None else f"{loss:.4g}",
        "images/s": "" if rate is None else f"{rate:.0f}",
        "elapsed": duration(passed),
        "left": "" if expected is None else duration(max(expected - passed, 0.0)),
        "node": str(live.get("node", "")),
    }
