"""The smaller parts of a sweep: estimates, the screen, files, shared caches."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from types import SimpleNamespace

import pytest
import torch
from stubs import planned

from iufbench.cards.strategies import Resources
from iufbench.support.errors import InputError
from iufbench.sweeps import drive
from iufbench.sweeps.board import Board
from iufbench.sweeps.drive import Places
from iufbench.sweeps.estimate import DEFAULT_MEMORY_MB, Costs, Finished, describe
from iufbench.sweeps.gpus import USUAL_MIB, measured_mib
from iufbench.sweeps.grid import Grid
from iufbench.sweeps.inputs import prepare_inputs
from iufbench.sweeps.live import LiveProgress, to_file
from iufbench.sweeps.record import Record, event
from iufbench.sweeps.runs import PlannedRun
from iufbench.sweeps.screen import Screen, duration
from iufbench.sweeps.status import describe_status
from iufbench.sweeps.transfer import Changes, put

KIND = ("visa", "visa_8_4", "iuf", "1a2b3c4d")


def planned_kind(tmp_path, kind, images, preset="paper"):
    run = planned(tmp_path, 0)
    return PlannedRun(**{**vars(run), "kind": kind, "trained_images": images, "preset": preset})


def test_an_estimate_rests_on_the_nearest_finished_runs(tmp_path):
    other = ("visa", "visa_8_4", "ewc", "9f9f9f9f")
    costs = Costs([
        Finished(KIND, "paper", 100.0, 1000, 900.0, 10),
        Finished(KIND, "paper", 140.0, 1000, 950.0, 30),
        Finished(other, "paper", 50.0, 1000, 500.0, 20),
    ])  # fmt: skip
    same = costs.of(planned_kind(tmp_path, KIND, 1))
    assert (same.seconds, same.memory_mb, same.bytes) == (120.0, 950.0, 20)
    longer = costs.of(planned_kind(tmp_path, ("visa", "visa_8_1x4", "iuf", "00000000"), 3000))
    assert longer.seconds == pytest.approx(3000 * 240 / 2000) and longer.basis == "the same strategy"
    new = costs.of(planned_kind(tmp_path, ("visa", "visa_8_4", "si", "00000000"), 1000))
    assert new.seconds == pytest.approx(290 / 3) and new.basis == "other strategies"
    unknown = costs.of(planned_kind(tmp_path, KIND, 1, preset="quick"))
    assert unknown.seconds == 120.0  # the recipe's hash says all
    told = dataclasses.replace(planned(tmp_path, 0), resources=Resources(memory_mb=512))
    assert costs.of(told).memory_mb == 512.0  # its card's word, for nothing like it was measured
    elsewhere = costs.of(planned_kind(tmp_path, ("mvtec", "m", "iuf", "x"), 1))
    assert elsewhere.seconds is None and elsewhere.memory_mb == DEFAULT_MEMORY_MB
    text = describe([planned_kind(tmp_path, KIND, 1)] * 60, costs, jobs=2, free_bytes=100)
    assert "about 2 h in total, 1 h with 2 in parallel" in text and "NOT ENOUGH" in text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_table_on_a_terminal_is_redrawn_and_lines_stand_above_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "12")
    out, record = Terminal(), Record(tmp_path / "s")
    runs = [planned(tmp_path, n) for n in range(20)]
    record.begin("s", {}, runs, "local")
    board = Board(runs, Costs(), record, Screen(0, out), jobs=2)
    for run in runs[:15]:
        board.started(run)
    live = {"experience": 2, "experiences": 5, "phase": "training candle", "done": 30, "total": 60}
    record.live(runs[0]).write_text(json.dumps({**live, "loss": 0.25, "images_per_s": 81.0, "node": "here"}))
    board.tick()
    text = out.getvalue()
    assert "2/5" in text and "training 50%" in text and "0.25" in text and "81" in text and "here" in text
    assert "0/20 done, 15 running" in text and "and 7 more" in text
    assert max(map(len, text.splitlines())) < 100 and len(text.splitlines()) <= 11
    board.finished(runs[0], "complete", 3.0)
    assert f"\x1b[{len(text.splitlines())}A" in out.getvalue() and "[1/20] complete" in out.getvalue()
    assert board.seconds_left() is not None and not record.live(runs[0]).exists()


def test_a_run_asks_for_what_the_command_line_its_card_or_the_sweep_says(tmp_path):
    def asked(device="cpu", cpus=None, gpus=None, card=None):
        grid = Grid(protocols=["p"], strategies=["s"], device=device, threads=2)
        run = dataclasses.replace(planned(tmp_path, 0), resources=card or Resources())
        (run,) = Places.of(grid, "ray", None, cpus, gpus).assigned([run])
        return run.resources.cpus, run.resources.gpus, run.resources.memory_mb

    card = Resources(cpus=4, gpus=0.5, memory_mb=900)
    assert asked() == (2, 0, None) and asked("cuda") == (2, 1, None)
    assert asked("cuda", card=card) == (4, 0.5, 900)
    assert asked("cuda", cpus=8, gpus=0, card=card) == (8, 0, 900)


def test_durations():
    assert [duration(s) for s in (42, 450, 11520, 864000)] == ["42 s", "7.5 min", "3.2 h", "10.0 d"]


def test_a_run_tells_where_it_is_about_once_a_second(tmp_path):
    path = tmp_path / "live.json"
    progress = LiveProgress(to_file(path))
    with progress.bar("experience 3/5: training candle, pcb1", 100) as bar:
        first = json.loads(path.read_text())
        assert first["experience"] == 3 and first["done"] == 0 and first["phase"] == "training candle, pcb1"
        bar.advance(10, loss=0.5)
        assert json.loads(path.read_text()) == first
        bar._told -= 2
        bar.advance(10, loss=0.4)
    told = json.loads(path.read_text())
    assert told["done"] == 20 and told["loss"] == 0.4 and told["images_per_s"] > 0
    to_file(tmp_path / "no" / "folder.json")({"done": 1})  # a place that cannot be written stops nobody


def test_status_tells_running_from_silent_and_survives_half_a_line(tmp_path):
    runs = [planned(tmp_path, n) for n in range(3)]
    record = Record(tmp_path / "s")
    record.begin("s", {}, runs, "local")
    record.write(runs[0], event("running"))
    record.write(runs[1], event("running"))
    with open(record.folder / "events.jsonl", "a") as file:
        file.write('{"run": "half')
    live = {"time": time.time(), "experience": 1, "experiences": 2, "images_per_s": 150.4}
    record.live(runs[0]).write_text(json.dumps(live))
    record.live(runs[1]).write_text(json.dumps({"time": time.time(), "images_per_s": 99.8}))
    text = describe_status(record.folder)
    assert "3 runs: 2 running, 1 missing, 250 images/s in all" in text and "1/2" in text
    record.live(runs[1]).unlink()
    events = [json.dumps({"run": runs[1].id, "state": "running", "time": time.time() - 3600}) + "\n"]
    (record.folder / "events.jsonl").write_text("".join(events))
    told = describe_status(record.folder)
    assert "1 silent" in told and "repeat the sweep to resume it" in told


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs with 40 and 30 GiB free, 16 CPU cores."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda k: ((40 - 10 * k) * 2**30, 80 * 2**30))
    monkeypatch.setattr(drive, "cores", lambda: 16)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def places(tmp_path, device="auto", jobs=None, share=None):
    found = Places.of(Grid(("visa_8_4",), ("iuf",), device=device), "local", jobs, None, share, tmp_path)
    return found.jobs, found.threads, list(found.gpus)


def test_several_runs_share_a_gpu_as_memory_and_cores_allow(gpus, tmp_path, monkeypatch):
    assert places(tmp_path) == (6, 2, ["0", "1"])  # 30 GiB: three of 8 GiB and what CUDA takes
    monkeypatch.setattr(drive, "measured_mib", lambda results: 4000.0)
    assert places(tmp_path) == (8, 2, ["0", "1"])
    monkeypatch.setattr(drive, "measured_mib", lambda results: 60000.0)
    assert places(tmp_path)[0] == 2  # one each: whether it fits is said when it is planned
    monkeypatch.setattr(drive, "cores", lambda: 4)
    assert places(tmp_path, share=0.25) == (8, 1, ["0", "1"])
    assert places(tmp_path, jobs=3) == (3, 1, ["0", "1"])
    assert places(tmp_path, jobs=3, share=1) == (2, 2, ["0", "1"])
    assert places(tmp_path, device="cpu")[2] == []
    assert places(tmp_path, device="cuda:1", share=0.5) == (2, 2, [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert places(tmp_path, share=1)[2] == ["5", "7"]


@pytest.mark.parametrize("share", [0, 2])
def test_a_share_of_a_gpu_that_cannot_be(share, gpus, tmp_path):
    with pytest.raises(InputError, match=f"--gpus-per-run {share}: a run on this machine uses one GPU"):
        places(tmp_path, share=share)


def test_gpu_memory_is_that_of_finished_runs(tmp_path, monkeypatch):
    assert measured_mib(tmp_path) == USUAL_MIB
    for seed in range(3):
        folder = tmp_path / f"runs/visa/visa_8_4/iuf/1a2b3c4d/seed{seed}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    assert measured_mib(tmp_path) == USUAL_MIB  # none of them can be read
    used = {"seed0": 1000.0, "seed1": 3000.0, "seed2": None}

    def read(path):
        return SimpleNamespace(costs=SimpleNamespace(peak_device_memory_mb=used[path.name]))

    monkeypatch.setattr("iufbench.sweeps.estimate.read_record", read)
    assert measured_mib(tmp_path) == 3000.0


def test_inputs_of_several_runs_are_made_once(tmp_path):
    runs = [
        PlannedRun(**{**vars(planned(tmp_path, n)), "inputs": name, "kind": KIND})
        for n, name in enumerate(["a", "b", "a", "", "", "a"])
    ]
    made = []
    assert prepare_inputs(runs, _quiet(), lambda request, _: made.append(request.seed)) == 1
    assert made == [0]

    def broken(request, progress):
        raise InputError("an image is corrupted")

    assert prepare_inputs(runs, _quiet(), broken) == 1  # the runs will say so themselves


def _quiet():
    from iufbench.support.progress import Progress

    return Progress(-1)


def test_only_what_has_changed_is_sent_home(tmp_path):
    here, home = tmp_path / "here", tmp_path / "home"
    put(here, {"run.json": b"1", "checkpoints/experience0.pt": b"w", ".run.json.9.tmp": b"x"})
    changes = Changes(here)
    first = changes.take()
    assert set(first) == {"run.json", "checkpoints/experience0.pt"}
    put(home, first)
    assert changes.take() == {}
    put(here, {"metrics.csv": b"m", "run.json": b"22"})
    assert changes.take() == {"run.json": b"22", "metrics.csv": b"m"}
    assert (home / "checkpoints" / "experience0.pt").read_bytes() == b"w"
