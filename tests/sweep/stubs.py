"""Run functions that train nothing, for tests of engines, controlled by a run's settings."""

from __future__ import annotations

import json
import os
import signal
import time

from iufbench.support.errors import RunError
from iufbench.sweeps.runs import PlannedRun


def act(request, progress, bases=()):
    """``wait=S`` takes S seconds, ``die=SIGKILL`` kills its process, ``fail=`` fails, ``crash=`` has a bug.

    Leaves ``<results>/<seed>.json`` with its process, times and environment; ``stopped`` after Ctrl-C. With
    ``once`` the failure occurs in the first call only.
    """
    does = dict(setting.split("=") for setting in request.settings)
    path = request.results / f"{request.seed}.json"
    told = {
        "pid": os.getpid(),
        "start": time.time(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "bases": [str(base) for base in bases],
    }
    print(f"stub {request.seed}")
    first = request.results / f"{request.seed}.begun"
    spoiled = "once" not in does or not first.exists()
    first.touch()
    try:
        with progress.bar("experience 1/2: training x", 10) as bar:
            bar.advance(5, loss=0.5)
            time.sleep(float(does.get("wait", 0)))
    except KeyboardInterrupt:
        path.write_text(json.dumps({**told, "stopped": True}))
        raise
    if spoiled and "die" in does:
        os.kill(os.getpid(), getattr(signal, does["die"]))
    if spoiled and "fail" in does:
        raise RunError(does["fail"])
    if spoiled and "crash" in does:
        raise ZeroDivisionError(does["crash"])
    path.write_text(json.dumps({**told, "end": time.time()}))


def planned(results, number, *settings, base=""):
    """A run of ``act``."""
    from iufbench.cards.request import Request

    request = Request(protocol="stub", strategy="stub", seed=number, settings=settings, results=results)
    path = results / "runs" / "stub" / "stub_1_1" / "stub" / "00000000" / f"seed{number}"
    return PlannedRun(
        number=number, id=f"stub/stub_1_1/stub/00000000/seed{number}", path=path, request=request, base=base
    )


def told(results, number):
    """The output of a stub run."""
    return json.loads((results / f"{number}.json").read_text())
