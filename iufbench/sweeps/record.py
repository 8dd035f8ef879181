"""The folder of a sweep, ``<results>/sweeps/<name>/``.

``sweep.json`` holds the grid and its runs, ``events.jsonl`` a line per change of a run's state,
``live/<number>.json`` the progress of a running run, ``logs/<number>.log`` its output. Everything that shows
the status of a sweep reads these files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iufbench.cards.request import command
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import read_json, write_json
from iufbench.sweeps.runs import PlannedRun

FILE, EVENTS, LIVE, LOGS = "sweep.json", "events.jsonl", "live", "logs"
RUNNING, INTERRUPTED = "running", "interrupted"


@dataclass
class Event:
    """A change of a run's state; ``seconds`` is its duration, None while it is running."""

    state: str
    time: float
    node: str = ""
    error: str = ""
    seconds: float | None = None


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
        before = read_json(self.folder / FILE)
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
        try:
            text = (self.folder / EVENTS).read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunError(f"cannot read {self.folder / EVENTS}: {error.strerror}") from error
        return dict(_parsed(text))

    def contents(self) -> dict[str, Any]:
        """The content of ``sweep.json``. Raises InputError if the folder is not that of a sweep."""
        if not (self.folder / FILE).is_file():
            raise InputError(f"{self.folder} is not the folder of a sweep (no {FILE})")
        return read_json(self.folder / FILE)


def _parsed(text: str) -> Iterator[tuple[str, Event]]:
    for line in text.splitlines():
        try:
            values = json.loads(line)
            yield values.pop("run"), Event(**values)
        except (ValueError, KeyError, TypeError):
            continue  # the incomplete line of a killed driver: the run directory is authoritative


def _shown(value: Any) -> str:
    return "(default)" if value is None else json.dumps(value)


def read_live(path: Path) -> dict[str, Any]:
    """The latest progress of a run; empty if it has not reported any."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def event(state: str, **values: Any) -> Event:
    """An event that happens now."""
    return Event(state=state, time=round(time.time(), 1), **values)
