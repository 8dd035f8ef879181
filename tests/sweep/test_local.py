"""The local engine with runs that train nothing: scheduling, crashes, interrupts."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stubs import planned, told

from iufbench.sweeps.drive import Sweep, carry_out, failure_report
from iufbench.sweeps.local import LocalEngine
from iufbench.sweeps.record import Record
from iufbench.sweeps.screen import Screen

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Makes ``stubs`` importable in processes."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def done(results, runs, jobs=2, retry=False, share=False, **options):
    """Execute a sweep of stubs; (failures, output, its record)."""
    out = io.StringIO()
    sweep = Sweep("stub", {}, runs, results, retry)
    engine = LocalEngine(jobs, 1, function="stubs:act", **options)
    failures = carry_out(sweep, engine, "local", Screen(1, out), share)
    return failures, out.getvalue(), Record(sweep.folder)


def test_every_run_is_done_once_by_few_processes_with_a_log_each(tmp_path):
    runs = [planned(tmp_path, number, "wait=0.2") for number in range(6)]
    failures, text, record = done(tmp_path, runs)
    assert failures == {}
    reports = [told(tmp_path, number) for number in range(6)]
    assert len({r["pid"] for r in reports}) == 2 and os.getpid() not in {r["pid"] for r in reports}
    assert {r["threads"] for r in reports} == {"1"}
    assert "[6/6] complete" in text
    for run in runs:
        assert record.log(run).read_text().splitlines()[0] == f"stub {run.number}"
    assert {e.state for e in record.events().values()} == {"complete"}
    assert not list((record.folder / "live").iterdir())


def test_processes_are_dealt_out_to_gpus(tmp_path):
    runs = [planned(tmp_path, number, "wait=0.5") for number in range(4)]
    done(tmp_path, runs, jobs=2, gpus=["3", "5"])
    by_process = {told(tmp_path, n)["pid"]: told(tmp_path, n)["gpu"] for n in range(4)}
    assert sorted(by_process.values()) == ["3", "5"]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("die=SIGKILL", "killed by SIGKILL (out of memory?)"),
        ("fail=the disk is full", "the disk is full"),
        ("crash=by zero", "ZeroDivisionError: by zero"),
    ],
)
def test_what_goes_wrong_costs_one_run_and_is_repeated_on_request_only(tmp_path, setting, reason):
    runs = [planned(tmp_path, n, *([setting, "once="] if n == 1 else [])) for n in range(4)]
    failures, text, record = done(tmp_path, runs)
    assert list(failures) == [runs[1].id] and reason in failures[runs[1].id]
    assert all((tmp_path / f"{n}.json").exists() == (n != 1) for n in range(4))
    assert f"failed {runs[1].label}" in text
    report = failure_report(Sweep("stub", {}, runs, tmp_path), failures)
    assert (
        "1 of 4 runs failed" in report and "iufbench run --protocol stub" in report and "--seed 1" in report
    )
    left, _, _ = done(tmp_path, runs[1:2])
    assert list(left) == [runs[1].id] and not (tmp_path / "1.json").exists()
    again, _, record = done(tmp_path, runs[1:2], retry=True)
    assert again == {} and record.events()[runs[1].id].state == "complete"


def largest_crowd(results, numbers):
    """The maximum number of simultaneous runs."""
    spans = [(told(results, n)["start"], told(results, n)["end"]) for n in numbers]
    return max(sum(a <= start < b for a, b in spans) for start, _ in spans)


def test_a_run_waits_while_memory_is_short_and_alone_it_always_starts(tmp_path):
    runs = [planned(tmp_path, number, "wait=0.3") for number in range(4)]
    _, text, _ = done(tmp_path, runs, jobs=4, free=lambda: 100 * 2**20)  # each is expected to need 2048 MiB
    assert largest_crowd(tmp_path, range(4)) == 1 and "runs alone" in text
    more = [planned(tmp_path, number, "wait=2") for number in range(4, 8)]
    done(tmp_path, more, jobs=4, free=lambda: 5 * 2**30)
    assert largest_crowd(tmp_path, range(4, 8)) == 2


def test_a_run_waits_for_the_one_that_trains_its_base(tmp_path):
    runs = [planned(tmp_path, n, "wait=0.3", base="same" if n < 2 else "") for n in range(3)]
    done(tmp_path, runs, share=True)
    reports = [told(tmp_path, n) for n in range(3)]
    assert reports[1]["start"] >= reports[0]["end"]  # 0 leaves no base behind: 1 trains its own, later
    assert reports[2]["start"] < reports[0]["end"]
    assert all(r["bases"] == [] for r in reports)


def start_driver(results, on_interrupt=signal.SIG_DFL):
    """A driver with two active runs; its process and theirs. Background jobs ignore Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "interrupted.py"), str(results)],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, on_interrupt),
    )
    live = results / "sweeps" / "stub" / "live"
    deadline = time.time() + 60
    while len(list(live.glob("*.json"))) < 2:
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.1)
    return process, [json.loads(path.read_text())["pid"] for path in live.glob("*.json")]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    "number, on_interrupt",
    [(signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_IGN)],
)
def test_an_interrupt_is_passed_on_and_waited_for(tmp_path, number, on_interrupt):
    driver, processes = start_driver(tmp_path, on_interrupt)
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130 and b"stopping 2 runs" in errors
    assert not any(map(alive, processes))
    assert told(tmp_path, 0)["stopped"] and told(tmp_path, 1)["stopped"]
    events = Record(tmp_path / "sweeps" / "stub").events()
    assert [e.state for e in events.values()] == ["interrupted", "interrupted"]


def test_when_the_driver_is_killed_its_runs_stop_as_after_an_interrupt(tmp_path):
    driver, processes = start_driver(tmp_path)
    driver.kill()
    driver.communicate()
    deadline = time.time() + 60
    while any(map(alive, processes)):
        assert time.time() < deadline
        time.sleep(0.1)
    assert told(tmp_path, 0)["stopped"] and told(tmp_path, 1)["stopped"]
