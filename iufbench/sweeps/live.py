"""Live progress of a run: a small file, rewritten about once per second."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iufbench.support.progress import Bar, Progress

PERIOD = 1.0  # seconds


class LiveProgress(Progress):
    """``Progress`` that prints plain lines (into the run's log) and passes the state of bars to ``tell``."""

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._live = False
        self._tell = tell

    def bar(self, label: str, total: int, unit: str = " images") -> Bar:
        return LiveBar(label, total, unit, self._tell)


class LiveBar(Bar):
    def __init__(self, label: str, total: int, unit: str, tell: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(label, total, unit, live=False, lines=True)
        numbers = re.search(r"experience (\d+)/(\d+)", label)
        self._values: dict[str, Any] = {"phase": label, "total": total}
        if numbers:
            self._values |= {"experience": int(numbers[1]), "experiences": int(numbers[2])}
            self._values["phase"] = label.partition(": ")[2]
        self._unit_name, self._tell, self._told = unit.strip(), tell, -PERIOD
        self._say()

    def advance(self, n: int = 1, **notes: Any) -> None:
        super().advance(n, **notes)
        self._values |= {name: float(value) for name, value in notes.items()}
        self._say()

    def _say(self) -> None:
        clock = time.perf_counter()
        if clock - self._told < PERIOD:
            return
        self._told = clock
        passed = clock - self._start
        rate = self._done / passed if passed > 0 and self._unit_name == "images" else None
        self._tell({**self._values, "done": self._done, "images_per_s": rate})


def to_file(path: Path) -> Callable[[Mapping[str, Any]], None]:
    """A function that writes its values to ``path`` and ignores write errors: no run depends on them."""
    start = time.time()

    def tell(values: Mapping[str, Any]) -> None:
        told = {"node": platform.node(), "pid": os.getpid(), **values, "started": start, "time": time.time()}
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(told), encoding="utf-8")
            os.replace(temporary, path)
        except OSError:
            pass

    return tell
