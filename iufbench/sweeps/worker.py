"""A process that does one run after another, and what it does for each: exactly what ``iufbench run`` does.

It reads tasks as JSON lines from its standard input and answers each with one JSON line; what a run prints
goes into the run's own log. Importing torch and Avalanche costs seconds, so a process is kept for many
runs, but never shared by two: whatever kills it costs the run at hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iufbench.cards.request import Request
from iufbench.support.errors import InputError, RunError, printable
from iufbench.support.files import json_text
from iufbench.support.progress import Progress
from iufbench.sweeps.live import LiveProgress, to_file

# (request, progress, run directories that may hold the same base experience)
RunFunction = Callable[[Request, Progress, Sequence[Path]], None]
TRAIN = "iufbench.sweeps.worker:train"


def train(request: Request, progress: Progress, bases: Sequence[Path] = ()) -> None:
    """Do one run, or go on with it; raises what ``iufbench run`` would print."""
    from iufbench.engine.plan import prepare
    from iufbench.engine.runner import execute, is_complete
    from iufbench.reporting.figures.build import write_run_figures
    from iufbench.sweeps.base import adopt_base

    plan = prepare(request, progress=False)
    if not is_complete(plan):
        adopt_base(plan, bases, progress)
        execute(plan, progress)
    write_run_figures(plan.path)


def load_function(name: str) -> RunFunction:
    """``module:function``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def outcome_of(function: RunFunction, request: Request, progress: Progress, bases: Sequence[Path]) -> dict:
    """Call the run function; returns ``state``, ``seconds`` and ``error`` (one line)."""
    clock, error = time.perf_counter(), ""
    try:
        function(request, progress, bases)
        state = "complete"
    except KeyboardInterrupt:
        state = "interrupted"
    except (InputError, RunError) as problem:
        state, error = "failed", str(problem)
        print(f"error: {printable(error)}", file=sys.stderr)
    except Exception as problem:  # a bug costs its own run, not the others
        traceback.print_exc()
        state, error = "failed", f"{type(problem).__name__}: {problem}".splitlines()[0]
    return {"state": state, "seconds": time.perf_counter() - clock, "error": error}


def reset_peaks() -> bool:
    """Forget the largest memory so far, so that the next run reports its own; False where that cannot be."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # runs keep freed memory for themselves (allocator.py)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def main(name: str) -> None:
    # A sweep that a script started in the background ignores Ctrl-C, and so would what it starts; here it
    # is the driver's word to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    replies = os.fdopen(os.dup(1), "w")
    tasks: queue.Queue[dict[str, Any] | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(tasks, busy), daemon=True).start()
    function = load_function(name)
    while (task := tasks.get()) is not None:
        busy.set()
        _print_into(Path(task["log"]))
        request, progress = Request.from_dict(task["request"]), LiveProgress(to_file(Path(task["live"])))
        outcome = outcome_of(function, request, progress, [Path(p) for p in task["bases"]])
        sys.stdout.flush()
        sys.stderr.flush()
        busy.clear()
        with contextlib.suppress(BrokenPipeError):  # the driver is gone; the run directory has the truth
            replies.write(json.dumps(outcome) + "\n")
            replies.flush()
        if outcome["state"] == "interrupted" or not reset_peaks():
            break


def _listen(tasks: queue.Queue[dict[str, Any] | None], busy: threading.Event) -> None:
    """Tasks as they come. The end of the input is the end of the driver: stop, as after Ctrl-C."""
    rest = b""
    while chunk := os.read(0, 65536):  # not sys.stdin, whose lock must be free when Python ends
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            tasks.put(json.loads(line))
    tasks.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def _print_into(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def task_line(request: Request, log: Path, live: Path, bases: Sequence[Path]) -> str:
    """A task for ``main``, as the line that it reads."""
    task: Mapping[str, Any] = {
        "request": request.as_dict(),
        "log": str(log.absolute()),
        "live": str(live.absolute()),
        "bases": [str(path.absolute()) for path in bases],
    }
    return " ".join(json_text(task).splitlines()) + "\n"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1])
