"""``--dry-run --probe``: hours from a few iterations on this machine."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from tiny import tiny_plan, tiny_settings

from iufbench.bench import probe as probing
from iufbench.bench.probe import Hours, Pace, Speeds, estimated_hours, probe, total_hours
from iufbench.cli.main import main

SPEEDS = Speeds(base=Pace(100.0, 2.0, 3.0), increment=Pace(50.0, 1.0, 0.5), evaluate=0.25, read=0.125)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(probing, "MEASURED", 2)
    monkeypatch.setattr(probing, "READ", 2)


def test_hours_follow_from_speeds_images_and_epochs(data, tmp_path):
    """Two objects of 6 training and 7 test images for 2 epochs, then one for 3; computed by hand."""
    plan = tiny_plan("finetune", data, tmp_path, ("increment.epochs=3",))
    hours = estimated_hours(plan, SPEEDS)
    assert hours.training * 3600 == pytest.approx((100 + 2 * 12 * 2 + 3 * 12) + (50 + 1 * 6 * 3 + 0.5 * 6))
    assert hours.evaluation * 3600 == pytest.approx(0.25 * (14 + 21))
    assert hours.reading * 3600 == pytest.approx(0.125 * (18 + 21))
    every = tiny_plan("finetune", data, tmp_path, eval_unseen=True, diagnose_every=1)
    images = 21 + 21 * (1 + 2) + 21 * (1 + 2)  # before training; after each experience and each epoch
    assert estimated_hours(every, SPEEDS).evaluation * 3600 == pytest.approx(0.25 * images)


def test_an_epoch_may_cover_all_images_so_far(data, tmp_path):
    plan = tiny_plan("cumulative", data, tmp_path)
    found = probe(plan)
    assert not found.base.all_so_far
    assert found.increment.all_so_far
    growing = Speeds(Pace(0.0, 0.0, 0.0), Pace(0.0, 1.0, 0.0, True), 0.25, 0.125)
    assert estimated_hours(plan, growing).training * 3600 == pytest.approx(18 * 2)


@pytest.mark.parametrize("strategy", ["replay", "patchcore"])
def test_a_probe_measures_every_stage(data, tmp_path, strategy):
    """With a network, and without."""
    found = probe(tiny_plan(strategy, data, tmp_path / "results"))
    for pace in (found.base, found.increment):
        assert pace.end > 0 and (pace.shown > 0) == (strategy == "replay") and not pace.all_so_far
    assert found.evaluate > 0 and found.read > 0
    assert not (tmp_path / "results").exists()


def test_iterations_of_the_warm_up_are_not_timed(monkeypatch):
    watch = probing._Stopwatch(SimpleNamespace(type="cpu", __str__=lambda self: "cpu"))
    stopped = []
    strategy = SimpleNamespace(stop_training=lambda: stopped.append(True), dataloader=[0] * 4)
    times = iter([0.0, 40.0, 42.0, 43.0])
    monkeypatch.setattr(watch, "clock", lambda: next(times))
    for _ in range(3):
        watch.before_training_iteration(strategy)
        watch.after_training_iteration(strategy)
    assert watch.seconds() == 1.5 and stopped


def test_shared_images_are_read_once():
    hours = [Hours(1.0, 2.0, 4.0), Hours(1.0, 2.0, 4.0), Hours(1.0, 2.0, 4.0)]
    assert total_hours(hours, ["a", "a", ""]) == 3 * 3 + 4 + 4


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_line_shows_hours_per_run_and_in_total(data, tmp_path):
    grid = tmp_path / "grid.yaml"
    content = {
        "protocols": ["visa_1_1"], "strategies": ["padim"], "seeds": "0-1", "data_root": str(data),
        "device": "cpu", "threads": 1, "settings": ["image_size=64"],
    }  # fmt: skip
    grid.write_text(yaml.safe_dump(content))
    done = invoke("sweep", grid, "--dry-run", "--probe", "-j", "1", "--results", tmp_path / "r")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("probing padim") == 1 and len(re.findall(r"seed[01] ", done.stdout)) == 2
    assert "in total by the probe" in done.stdout and not (tmp_path / "r").exists()


def test_run_with_a_probe(data, tmp_path):
    settings = [part for s in tiny_settings("finetune") for part in ("--set", s)]
    words = ["run", "--protocol", "visa_1_1", "--strategy", "finetune", "--data-root", data]
    done = invoke(*words, *settings, "--results", tmp_path / "r", "--probe", "--dry-run")
    assert done.exit_code == 0, done.output
    assert re.search(r"training \d+ images/s in the base", done.stdout) and "time       about" in done.stdout
    refused = invoke(*words, "--results", tmp_path / "r", "--probe")
    assert refused.exit_code == 2 and "--probe belongs to --dry-run" in refused.output
    assert not (tmp_path / "r").exists()
