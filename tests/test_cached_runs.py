"""Whole runs with and without a cache are byte-identical."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from notes import Notes
from tiny import tiny_plan

from iufbench.cli.main import main
from iufbench.data.cache.entry import MANIFEST, problem_of
from iufbench.engine.assembly import assemble
from iufbench.engine.runner import execute
from iufbench.models.backbone import FrozenBackbone
from iufbench.support.progress import Progress
from iufbench.trust.reevaluate import evaluate_run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("IUFBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def outcome(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("metrics.csv", "scores.csv.gz", "train_log.csv")}


def test_cached_and_live_runs_end_with_the_same_bytes(data, tmp_path, folder, monkeypatch):
    """For any number of threads, and whichever protocol filled the cache."""
    live = execute(tiny_plan("iuf", data, tmp_path / "live", cache=False), Progress(-1))
    assert not folder.exists()
    order = ("cashew", "candle", "capsules")
    assemble(
        tiny_plan("iuf", data, tmp_path, threads=2, protocol="visa_1_1x2", order=order), CPU, Progress(-1)
    )
    monkeypatch.setattr(FrozenBackbone, "features", None)
    cached = execute(tiny_plan("iuf", data, tmp_path / "cached"), Progress(-1))
    assert outcome(live) == outcome(cached)


def test_evaluating_padim_again_uses_each_experience_s_memory(data, tmp_path, folder):
    run = execute(tiny_plan("padim", data, tmp_path / "r"), Progress(-1))
    assert evaluate_run(run, Notes()) == []


def test_verification_finds_out_features_that_are_not_the_data_s(data, tmp_path, folder):
    """Another user replaced the cached data, including checksums."""
    run = execute(tiny_plan("patchcore", data, tmp_path / "r"), Progress(-1))
    (place,) = folder.glob("features/*")
    array = np.load(place / "00000.npy")[::-1].copy()
    np.save(place / "00000.npy", array)
    manifest = json.loads((place / MANIFEST).read_text())
    manifest["files"][0]["crc32"] = zlib.crc32(array.data)
    (place / MANIFEST).write_text(json.dumps(manifest))
    assert problem_of(place) == ""
    again = execute(tiny_plan("patchcore", data, tmp_path / "poisoned"), Progress(-1))
    assert outcome(again)["scores.csv.gz"] != outcome(run)["scores.csv.gz"]
    notes = Notes()
    assert evaluate_run(run, notes) == []
    assert "does not match the data: continuing in memory" in notes.text
    assert evaluate_run(again, Notes()) != []


def invoke(*arguments):
    return CliRunner().invoke(main, ["data", "cache", *arguments])


def test_the_run_command_can_do_without(data, tmp_path, folder):
    command = ["run", "--protocol", "visa_2_1", "--strategy", "padim", "--data-root", str(data), "--no-cache"]
    size = ["--set", "image_size=32", "--results", str(tmp_path / "r"), "-q", "--device", "cpu"]
    done = CliRunner().invoke(main, [*command, *size])
    assert done.exit_code == 0, done.output
    assert not folder.exists()
