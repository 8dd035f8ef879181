"""The status of a sweep, read from its files at any time."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from iufbench.engine.describe import columns
from iufbench.reporting.record import INFO, read_record
from iufbench.support.errors import RunError
from iufbench.sweeps.board import live_row, total_rate
from iufbench.sweeps.record import LIVE, RUNNING, Event, Record, read_live
from iufbench.sweeps.runs import COMPLETE, FAILED, MISSING, UNFINISHED
from iufbench.sweeps.screen import duration

SILENT = 120.0  # seconds without progress after which a run is shown as silent


def rows_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the folder of a sweep.

    Run directories decide which runs are complete, so runs finished by ``iufbench run`` count.

    Args:
        folder: ``<results>/sweeps/<name>``.

    Returns:
        The content of ``sweep.json``, and one mapping per run: id, state, path, command, and, once it has
        started, since, node, error, seconds and live.

    Raises:
        InputError: ``folder`` is not that of a sweep.
    """
    record = Record(folder)
    contents, events = record.contents(), record.events()
    rows = []
    for number, run in enumerate(contents["runs"]):
        event = events.get(run["id"])
        live = read_live(folder / LIVE / f"{number}.json")
        row = {**run, "state": _state(Path(run["path"]), event, live)}
        if event is not None:
            row |= {"since": event.time, "node": event.node, "error": event.error, "seconds": event.seconds}
        if row["state"] == RUNNING:
            row["live"] = live
        rows.append(row)
    return contents, rows


def _state(path: Path, event: Event | None, live: dict[str, Any]) -> str:
    try:
        status = read_record(path).status if (path / INFO).is_file() else None
    except RunError:
        return FAILED
    if status == "complete":
        return COMPLETE
    if event is not None and event.state == RUNNING:
        last = max(event.time, live.get("time", 0.0))
        return RUNNING if time.time() - last < SILENT else "silent"
    if status == "failed" or (event is not None and event.state == FAILED):
        return FAILED
    return MISSING if status is None else UNFINISHED


def describe_status(folder: Path) -> str:
    """Describe a sweep: counts by state, running runs, and failed runs with the commands that repeat them."""
    contents, rows = rows_of(folder)
    counts = Counter(row["state"] for row in rows)
    order = (COMPLETE, RUNNING, "silent", FAILED, UNFINISHED, MISSING)
    told = ", ".join(f"{counts[state]} {state}" for state in order if counts[state])
    lines = [f"sweep {contents['name']} ({contents['engine']}): {len(rows)} runs: {told}"]
    lines[0] += total_rate(row["live"] for row in rows if row["state"] == RUNNING)
    seconds = [row["seconds"] for row in rows if row["state"] == COMPLETE and row.get("seconds")]
    if seconds:
        lines.append(f"a finished run took {duration(sum(seconds) / len(seconds))} on average")
    running = [row for row in rows if row["state"] == RUNNING]
    if running:
        now = time.time()
        table = [live_row(row["id"], row["live"], now - row["since"], None) for row in running]
        lines += ["", columns([{k: v for k, v in r.items() if k != "left"} for r in table])]
    for row in rows:
        if row["state"] in (FAILED, "silent"):
            reason = row.get("error") or "no progress; repeat the sweep to resume it"
            lines += ["", f"{row['state']}: {row['id']}: {reason}", f"  {row['command']}"]
    return "\n".join(lines)
