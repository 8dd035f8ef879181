"""The folder of a sweep, ``<results>/sweeps/<name>/``.

``sweep.json`` holds the grid and its runs, ``events.jsonl`` a line per change of a run's state,
``live/<number>.json`` the progress of a running run, ``logs/<number>.log`` its output. Everything that shows
the status of a sweep reads these files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from iufbench.cards.request import command
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import read_json, read_text, write_json
from iufbench.sweeps.runs import PlannedRun

FILE, EVENTS, LIVE, LOGS = "sweep.json", "events.jsonl", "live", "logs"
RUNNING, INTERRUPTED = "running", "interrupted"
MAX_BYTES = 2**26  # of a file that is read


@dataclass
class Event:
    """A change of a run's state; ``seconds`` is its duration, None while it is running."""

    state: str
    time: float
    node: str = ""
    error: str = ""
    seconds: float | None = None


@dataclass
class _Line(Event):
    """A line of ``events.jsonl``."""

    run: str = field(kw_only=True)


@dataclass
class _PlannedLine:
    id: str
    path: str
    command: str


@dataclass
class _Sweep:
    """``sweep.json``."""

    name: str
    engine: str
    grid: dict[str, Any]
    runs: list[_PlannedLine]


@dataclass
class _Live:
    """``live/<number>.json``: what ``live.LiveProgress`` tells."""

    time: float | None = None
    started: float | None = None
    pid: int | None = None
    done: int | None = None
    total: int | None = None
    phase: str | None = None
    experience: int | None = None
    experiences: int | None = None
    loss: float | None = None
    images_per_s: float | None = None
    node: str | None = None


class Record:
    """Reads and writes the folder of a sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, name: str, grid: Mapping[str, Any], runs: Sequence[PlannedRun], engine: str) -> list[str]:
        """Write ``sweep.json``. Returns lines that describe how the grid differs from the previous call."""
        (self.folder / LIVE).mkdir(parents=True, exist_ok=True)
        (self.folder / LOGS).mkdir(exist_ok=True)
        for left in (self.folder / LIVE).glob("*.json"):
            left.unlink()
        changes = self._changes(grid, runs) if (self.folder / FILE).is_file() else []
        plain = [{"id": r.id, "path": str(r.path.absolute()), "command": command(r.request)} for r in runs]
        write_json(self.folder / FILE, {"name": name, "engine": engine, "grid": grid, "runs": plain})
        return changes

    def _changes(self, grid: Mapping[str, Any], runs: Sequence[PlannedRun]) -> list[str]:
        before = self.contents()
        old, new = {r["id"] for r in before["runs"]}, {r.id for r in runs}
        if old == new:
            return []
        lines = [f"the grid has changed: {len(new - old)} runs more, {len(old - new)} fewer"]
        was, now = before["grid"], json.loads(json.dumps(grid))
        for key in dict.fromkeys([*was, *now]):
            if was.get(key) != now.get(key):
                lines.append(f"  {key}: {_shown(was.get(key))} -> {_shown(now.get(key))}")
        return lines

    def log(self, run: PlannedRun) -> Path:
        return self.folder / LOGS / f"{run.number}.log"

    def live(self, run: PlannedRun) -> Path:
        return self.folder / LIVE / f"{run.number}.json"

    def write(self, run: PlannedRun, event: Event) -> None:
        """Append an event with a single write, so that a kill leaves at most one incomplete line."""
        values = {k: v for k, v in vars(event).items() if v not in ("", None)}
        with open(self.folder / EVENTS, "a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run.id, **values}) + "\n")

    def events(self) -> dict[str, Event]:
        """run id -> its last event."""
        if not os.path.lexists(self.folder / EVENTS):
            return {}
        return dict(_parsed(read_text(self.folder / EVENTS, MAX_BYTES)))

    def contents(self) -> dict[str, Any]:
        """The content of ``sweep.json``. Raises InputError if the folder is not that of a sweep, RunError if
        it is corrupted."""
        path = self.folder / FILE
        if not path.is_file():
            raise InputError(f"{self.folder} is not the folder of a sweep (no {FILE})")
        try:
            return msgspec.to_builtins(msgspec.convert(read_json(path, MAX_BYTES), _Sweep))
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            raise RunError(f"{path} is corrupted ({error}): repeat the sweep to write it again") from error


def _parsed(text: str) -> Iterator[tuple[str, Event]]:
    for line in text.splitlines():
        try:
            found = msgspec.json.decode(line.encode("utf-8", "surrogateescape"), type=_Line)
        except msgspec.MsgspecError:
            continue  # the half line of a driver that was killed: the run directory has the truth
        values = vars(found)
        yield values.pop("run"), Event(**values)


def _shown(value: Any) -> str:
    return "(default)" if value is None else json.dumps(value)


def read_live(path: Path) -> dict[str, Any]:
    """The latest progress of a run; empty if it has not reported any."""
    try:
        found = msgspec.convert(read_json(path, MAX_BYTES), _Live)
    except (RunError, msgspec.ValidationError, UnicodeEncodeError):
        return {}
    return {name: value for name, value in vars(found).items() if value is not None}


def event(state: str, **values: Any) -> Event:
    """An event that happens now."""
    return Event(state=state, time=round(time.time(), 1), **values)
