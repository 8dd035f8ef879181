"""The code that executes on a Ray cluster: a collector on the driver's machine, runs on any node."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iufbench.cards.request import Request
from iufbench.reporting.record import INFO
from iufbench.support.errors import InputError
from iufbench.support.progress import Bar
from iufbench.sweeps.live import LiveProgress, to_file
from iufbench.sweeps.transfer import Changes, as_if_done_at_home, base_of, everything, put
from iufbench.sweeps.worker import load_function, outcome_of, reset_peaks


@dataclass(frozen=True)
class Assignment:
    """A run to be executed on any node.

    Paths are the driver's; ``place`` is relative to its folder of runs. ``shared``: every node sees the
    driver's results folder under the same path.
    """

    number: int
    request: dict[str, Any]
    path: str
    place: str
    function: str
    shared: bool
    log: str
    live: str
    bases: tuple[str, ...] = ()


class Collector:
    """Runs on the driver's machine and writes what nodes send: files, logs, progress.

    A run that Ray restarts elsewhere gets a higher attempt number; data from earlier attempts (of a node
    that was only disconnected) are rejected.
    """

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}

    def begin(self, job: Assignment) -> tuple[int, dict[str, bytes], dict[str, dict[str, bytes]]]:
        """The number of this attempt, the files of earlier ones, and base experiences by path."""
        attempt = self._attempts[job.number] = self._attempts.get(job.number, 0) + 1
        if job.shared:
            return attempt, {}, {}
        bases = {base: base_of(Path(base)) for base in job.bases[:1]}
        return attempt, everything(Path(job.path)), bases

    def tell(self, job: Assignment, attempt: int, values: Mapping[str, Any]) -> None:
        if attempt == self._attempts.get(job.number):
            to_file(Path(job.live))(values)

    def keep(self, job: Assignment, attempt: int, files: Mapping[str, bytes], log: str) -> bool:
        """Store changed files and output; False if a newer attempt exists."""
        if attempt != self._attempts.get(job.number):
            return False
        put(Path(job.path), files)
        if log:
            with open(job.log, "a", encoding="utf-8") as file:
                file.write(log)
        return True


class SendingProgress(LiveProgress):
    """Sends changed files to the driver whenever a new phase begins, thus also after every experience."""

    def __init__(self, tell: Any, send: Any) -> None:
        super().__init__(tell)
        self._send = send

    def bar(self, label: str, total: int, unit: str = " images") -> Bar:
        self._send()
        return super().bar(label, total, unit)


class Superseded(RuntimeError):
    """A newer attempt of this run exists on another node."""


def node_name() -> str:
    """The host name and, since a host can run several nodes, the beginning of the node's id."""
    import ray

    return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:6]}"


def do_run(job: Assignment, collector: Any) -> dict[str, Any]:
    """Execute a run on this node, or resume one that was lost. Returns its outcome and the node's name."""
    import ray

    reset_peaks()
    node = node_name()
    asked = Request.from_dict(job.request)
    attempt, files, bases = ray.get(collector.begin.remote(job))

    def tell(values: Mapping[str, Any]) -> None:
        collector.tell.remote(job, attempt, {**values, "node": node, "pid": os.getpid()})

    with tempfile.TemporaryDirectory(prefix="iufbench-") as scratch:
        results = Path(scratch) / "results"
        request = asked if job.shared else dataclasses.replace(asked, results=results)
        folder = Path(job.path) if job.shared else results / "runs" / job.place
        changes, log = Changes(folder), io.StringIO()
        if not job.shared:
            put(folder, files)
            changes.forget()
        donors = []
        for number, (base, content) in enumerate(bases.items()):
            donors.append(Path(base) if job.shared else Path(scratch) / f"base{number}")
            put(donors[-1], content)

        def send() -> None:
            found = {} if job.shared else changes.take()
            if INFO in found:
                found[INFO] = as_if_done_at_home(found[INFO], asked)
            text = log.getvalue()
            log.seek(0)
            log.truncate()
            if not ray.get(collector.keep.remote(job, attempt, found, text)):
                raise Superseded(f"another node has taken over {job.place}")

        if job.shared:
            donors = [Path(base) for base in job.bases]
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            print(f"node {node}, process {os.getpid()}, attempt {attempt}")
            function = load_function(job.function)
            outcome = outcome_of(function, request, SendingProgress(tell, send), donors)
        send()
    return {**outcome, "node": node, "attempt": attempt}


def check_node(requests: list[tuple[dict[str, Any], str]]) -> list[str]:
    """Check on this node that runs can be executed.

    Args:
        requests: Requests as mappings, each with the driver's fingerprint of the data set.

    Returns:
        One line per problem.
    """
    from iufbench.engine.plan import prepare

    problems = []
    for plain, fingerprint in requests:
        request = Request.from_dict({**plain, "results": tempfile.gettempdir()})
        try:
            plan = prepare(request, progress=False)
        except InputError as error:
            problems.append(f"node {node_name()}: {error}")
            continue
        if plan.dataset.fingerprint() != fingerprint:
            problems.append(
                f"node {node_name()}: {plan.dataset.root} differs from the driver's data (file list or sizes)"
            )
    return problems
