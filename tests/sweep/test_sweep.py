"""Sweeps of real, tiny runs through the command line: the same as single runs, resumed, shared, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from tiny import SETTINGS
from victims import FOLDER

from iufbench.cards.request import Request, arguments
from iufbench.cli.main import main
from iufbench.engine.checkpoint import checkpoint_path
from iufbench.engine.plan import prepare
from iufbench.engine.runner import execute
from iufbench.reporting.rundir import METRICS, SCORES, TRAIN_LOG
from iufbench.reporting.store import find_runs, load_run
from iufbench.support.progress import Progress
from iufbench.sweeps.drive import Sweep, carry_out
from iufbench.sweeps.grid import expand, read_grid
from iufbench.sweeps.local import LocalEngine
from iufbench.sweeps.record import Record
from iufbench.sweeps.runs import plan_runs
from iufbench.sweeps.screen import Screen

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def grid_file(data, folder, **more):
    content = {
        "protocols": ["visa_1_2"],
        "strategies": ["uniad"],
        "data_root": str(data),
        "device": "cpu",
        "threads": 1,
        "settings": list(SETTINGS),
        **more,
    }
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def one_by_one(file, results):
    """The finished runs of a grid file by their ids, trained in this process as ``iufbench run`` does."""
    runs = plan_runs(expand(read_grid(file, {}), results), 1)
    return {run.id: load_run(execute(prepare(run.request, progress=False), Progress(-1))) for run in runs}


def same_numbers(one, other):
    """Metrics, scores, training log and every checkpoint of two run directories are equal to the last bit."""
    for name in (METRICS, SCORES, TRAIN_LOG):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for number in range(len(load_run(one).experiences)):
        states = [torch.load(checkpoint_path(run, number), weights_only=True) for run in (one, other)]
        assert equal(*states), f"checkpoint {number}"


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.fixture(scope="module")
def shareable(data, tmp_path_factory):
    """A grid file of four runs, two each with the same base experience, and the runs without sharing it."""
    strategies = ["ewc", "replay"]  # a penalty's state, stored images
    folder = tmp_path_factory.mktemp("shareable")
    file = grid_file(data, folder, protocols=["visa_1_2", "visa_1_1x2"], strategies=strategies)
    return file, one_by_one(file, folder)


def assert_a_shared_base_changes_no_number(apart, shared):
    assert shared.keys() == apart.keys() and len(apart) == 4
    for name, one in apart.items():
        same_numbers(one.path, shared[name].path)
        assert one.info["summary"] == shared[name].info["summary"]
        assert one.info["costs"]["trained_images"] == shared[name].info["costs"]["trained_images"]
    takers = [run for run in shared.values() if "shared_base" in run.info]
    strategies = {run.info["strategy"]["name"] for run in apart.values()}
    assert sorted(run.info["strategy"]["name"] for run in takers) == sorted(strategies) and len(takers) == 2
    for run in takers:
        giver = run.info["shared_base"]["run"]
        assert giver in shared and giver.split("/")[2] == run.info["strategy"]["name"]
        assert run.info["resumed"] == [1]


@pytest.mark.slow
def test_a_sweep_does_what_single_runs_do_and_only_what_is_missing(shareable, tmp_path):
    (file, apart), results = shareable, tmp_path / "swept"
    done = invoke("sweep", file, "--jobs", 2, "--share-base", "--results", results)
    assert done.exit_code == 0, done.output
    assert_a_shared_base_changes_no_number(apart, {run.id: run for run in find_runs(results)[0]})
    assert "SYNTHETIC" in done.stdout and "visa_1_2" in done.stdout and "visa_1_1x2" in done.stdout
    assert "[4/4] complete visa-synthetic/visa_1_" in done.stderr
    run = find_runs(results)[0][0]
    request = Request.from_dict(run.info["request"])
    assert run.info["command"] == "iufbench " + " ".join(arguments(request))
    alone = invoke(*arguments(Request.from_dict({**run.info["request"], "results": str(tmp_path / "alone")})))
    assert alone.exit_code == 0, alone.output
    (other,) = find_runs(tmp_path / "alone")[0]
    same_numbers(run.path, other.path)
    assert sorted(p.name for p in run.path.iterdir()) == sorted(p.name for p in other.path.iterdir())

    stamps = [(run.path / "run.json").stat().st_mtime_ns for run in find_runs(results)[0]]
    again = invoke("sweep", file, "--results", results, "--dry-run")
    assert "4: 4 finished, 0 to do" in again.stdout
    more = invoke("sweep", file, "--results", results, "--seeds", "0-1", "--dry-run")
    assert "4 to do" in more.stdout and "2 estimated from the same run" in more.stdout
    nothing = invoke("sweep", file, "--results", results)
    assert nothing.exit_code == 0 and nothing.stdout == done.stdout
    assert stamps == [(run.path / "run.json").stat().st_mtime_ns for run in find_runs(results)[0]]

    status = invoke("sweep", "status", results / "sweeps" / "tiny")
    assert status.exit_code == 0 and "4 runs: 4 complete" in status.stdout
    rows = json.loads(invoke("sweep", "status", results / "sweeps" / "tiny", "--json").stdout)
    assert [row["state"] for row in rows] == ["complete"] * 4


def test_a_failed_run_is_listed_with_its_command_and_left_alone(data, tmp_path):
    whole = one_by_one(grid_file(data, tmp_path), tmp_path / "whole")
    spoilt = grid_file(data, tmp_path, strategies=["uniad", {"uniad": ["base.lr=1e30"]}])
    done = invoke("sweep", spoilt, "--jobs", 1, "--results", tmp_path / "r")
    assert done.exit_code == 1, done.output
    assert "1 of 2 runs failed" in done.stderr and "--set base.lr=1e30" in done.stderr
    assert "visa_1_2" in done.stdout  # the other one is in the table
    (run,) = find_runs(tmp_path / "r")[0]
    same_numbers(run.path, whole[run.id].path)
    again = invoke("sweep", spoilt, "--jobs", 1, "--results", tmp_path / "r")
    assert again.exit_code == 1 and "skipped (--retry-failed repeats them)" in again.stderr
    status = invoke("sweep", "status", tmp_path / "r" / "sweeps" / "tiny")
    assert "1 complete, 1 failed" in status.stdout and "--set base.lr=1e30" in status.stdout


def test_an_edited_grid_shows_what_has_changed(data, tmp_path):
    record = Record(tmp_path / "sweeps" / "tiny")
    for seeds, strategies in (("0-1", ["uniad"]), ("1-3", ["uniad", "ewc"])):
        grid = read_grid(grid_file(data, tmp_path, seeds=seeds, strategies=strategies), {})
        changes = record.begin("tiny", grid.as_dict(), plan_runs(expand(grid, tmp_path), 1), "local")
    assert changes == [
        "the grid has changed: 5 runs more, 1 fewer",
        '  strategies: ["uniad"] -> ["uniad", "ewc"]',
        '  seeds: "0-1" -> "1-3"',
    ]


def test_status_of_something_else(tmp_path):
    done = invoke("sweep", "status", tmp_path)
    assert done.exit_code == 2 and "is not the folder of a sweep" in done.stderr


@pytest.mark.slow
def test_a_run_whose_process_is_killed_resumes_and_ends_with_the_same_bits(
    shareable, data, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    file = grid_file(data, tmp_path, protocols=["visa_1_1x2"], strategies=["ewc"])
    grid, results = read_grid(file, {}), tmp_path / "killed"
    (run,) = runs = plan_runs(expand(grid, results), 1)
    engine = LocalEngine(1, 1, function="victims:killed")
    failures = carry_out(Sweep("tiny", grid.as_dict(), runs, results), engine, "local", Screen(-1), False)
    assert "was killed by SIGKILL" in failures[run.id] and (tmp_path / "died").exists()
    again = invoke(*arguments(run.request))
    assert again.exit_code == 0, again.output
    killed = load_run(run.path)
    assert killed.info["resumed"] == [1]
    same_numbers(shareable[1][run.id].path, killed.path)
