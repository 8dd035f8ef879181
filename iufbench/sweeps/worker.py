"""A worker process that executes one run after another, each exactly as ``iufbench run`` does.

It reads tasks as JSON lines from standard input and replies to each with one JSON line; the output of a run
goes into its log. Importing torch and Avalanche takes seconds, so a process is reused for many runs, but
only one at a time: a crash costs a single run.
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
    """Execute or resume a run. Raises the errors that ``iufbench run`` would print."""
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
    """Import a function given as ``module:function``."""
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
    except Exception as problem:  # a bug fails its own run only
        traceback.print_exc()
        state, error = "failed", f"{type(problem).__name__}: {problem}".splitlines()[0]
    return {"state": state, "seconds": time.perf_counter() - clock, "error": error}


def reset_peaks() -> bool:
    """Reset the peak memory, so that the next run reports its own; False if that is not possible."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # runs keep freed memory (support/allocator.py)
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
    # A sweep started in the background by a script ignores SIGINT, and its children inherit that; here the
    # signal is how the driver stops a run.
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
        with contextlib.suppress(BrokenPipeError):  # the driver is gone; the run directory is complete
            replies.write(json.dumps(outcome) + "\n")
            replies.flush()
        if outcome["state"] == "interrupted" or not reset_peaks():
            break


def _listen(tasks: queue.Queue[dict[str, Any] | None], busy: threading.Event) -> None:
    """Queue tasks as they arrive. The end of the input means that the driver ended: stop as after Ctrl-C."""
    rest = b""
    while chunk := os.read(0, 65536):  # not sys.stdin, whose lock must be free when Python exits
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
    """A task as the line that ``main`` reads."""
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
