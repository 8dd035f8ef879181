"""What happens on the machines of a Ray cluster: a collector beside the driver, runs anywhere."""

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
    """One run for whatever node takes it. Paths are the driver's; ``place`` is the run's below ``runs``.

    ``shared``: every node sees the driver's results folder under the same path.
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
    """Lives on the driver's machine and writes what runs send there: files, logs, how far they are.

    A run that Ray starts again elsewhere gets a higher attempt; what an earlier attempt still sends (a node
    that was only cut off) is refused.
    """

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}

    def begin(self, job: Assignment) -> tuple[int, dict[str, bytes], dict[str, dict[str, bytes]]]:
        """The number of this attempt, the files of earlier ones, and bases of other runs by their path."""
        attempt = self._attempts[job.number] = self._attempts.get(job.number, 0) + 1
        if job.shared:
            return attempt, {}, {}
        bases = {base: base_of(Path(base)) for base in job.bases[:1]}
        return attempt, everything(Path(job.path)), bases

    def tell(self, job: Assignment, attempt: int, values: Mapping[str, Any]) -> None:
        if attempt == self._attempts.get(job.number):
            to_file(Path(job.live))(values)

    def keep(self, job: Assignment, attempt: int, files: Mapping[str, bytes], log: str) -> bool:
        """Store what has changed; False when another attempt has taken over."""
        if attempt != self._attempts.get(job.number):
            return False
        put(Path(job.path), files)
        if log:
            with open(job.log, "a", encoding="utf-8") as file:
                file.write(log)
        return True


class SendingProgress(LiveProgress):
    """Sends home what has changed whenever a new piece of work begins: after every experience, too."""

    def __init__(self, tell: Any, send: Any) -> None:
        super().__init__(tell)
        self._send = send

    def bar(self, label: str, total: int, unit: str = " images") -> Bar:
        self._send()
        return super().bar(label, total, unit)


class Superseded(RuntimeError):
    """Another node does this run now."""


def node_name() -> str:
    """The host and, because one host can be several nodes, the beginning of the node's id."""
    import ray

    return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:6]}"


def do_run(job: Assignment, collector: Any) -> dict[str, Any]:
    """Do one run on this node, or go on where a lost one stopped; returns its outcome and the node's name."""
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
                raise Superseded(f"another node does run {job.place} now")

        if job.shared:
            donors = [Path(base) for base in job.bases]
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            print(f"node {node}, process {os.getpid()}, attempt {attempt}")
            function = load_function(job.function)
            outcome = outcome_of(function, request, SendingProgress(tell, send), donors)
        send()
    return {**outcome, "node": node, "attempt": attempt}


def check_node(requests: list[tuple[dict[str, Any], str]]) -> list[str]:
    """What this node lacks for the runs of each request (with the driver's data fingerprint), in words."""
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
                f"node {node_name()}: {plan.dataset.root} holds other data than here (its file list or file "
                "sizes differ)"
            )
    return problems
