"""``iufbench extend``: adding an object to a finished run equals the run that had it from the start."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from tiny import tiny_run

from iufbench.cards.protocols import resolve_protocol
from iufbench.cli.main import main
from iufbench.engine.extend import extend
from iufbench.reporting.store import load_run
from iufbench.support.nested import flat
from iufbench.support.progress import Progress


def invoke(*arguments):
    return CliRunner().invoke(main, ["extend", *map(str, arguments), "-q"])


def last_state(run):
    return flat(torch.load(run.path / f"checkpoints/experience{len(run.experiences) - 1}.pt"))


def same(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("strategy", ["iuf", "replay", "patchcore_per_object"])
def test_equal_to_the_run_that_had_the_object_from_the_start(strategy, two_objects, data, tmp_path):
    parent = two_objects(strategy)
    done = invoke(parent.path, "--object", "cashew", "--results", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "cost of adding cashew" in done.stdout
    whole = tiny_run(strategy, data, tmp_path / "b", protocol="visa_1_1x2")
    run = load_run(tmp_path / "a/runs" / whole.id)
    for name in ("metrics.csv", "scores.csv.gz"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    one, other = last_state(run), last_state(whole)
    assert one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    told = run.record.parent
    assert told.run == parent.id and told.experiences == 2 and told.missing == []
    assert run.record.summary == whole.record.summary
    for costs in (run.record.costs, whole.record.costs):
        assert len(costs.train_seconds) == len(costs.bytes_kept) == 3
    assert run.record.costs.trained_images == whole.record.costs.trained_images
    assert load_run(parent.path).record == parent.record  # untouched
    again = invoke(parent.path, "--object", "cashew", "--results", tmp_path / "a")
    assert again.exit_code == 0 and load_run(run.path).record.finished == run.record.finished


def test_without_the_old_objects_images(two_objects, data, tmp_path):
    """Old training images are never needed; an old object without test images is not evaluated."""
    parent = two_objects("patchcore_per_object")
    root = tmp_path / "visa"
    shutil.copytree(data, root)
    shutil.rmtree(root / "candle")
    table = root / "split_csv/1cls.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(row for row in rows if not row.startswith("candle")))
    run = extend(parent.path, ["cashew"], Progress(-1), root, tmp_path / "r")
    assert run.record.parent.missing == ["candle"]
    last = run.metrics[run.metrics["experience"] == 2]
    assert set(last["object"]) == {"capsules", "cashew"}
    before = parent.metrics[parent.metrics["experience"] == 1]
    assert set(before["object"]) == {"candle", "capsules"}
    assert run.matrix("image").values[1, 0] == parent.matrix("image").values[1, 0]


def test_thresholds_are_extended_and_decide(data, tmp_path):
    settings = {"threshold": "quantile 0.95", "calibration": 0.5}
    parent = tiny_run("patchcore_per_object", data, tmp_path / "a", protocol="visa_1_1", **settings)
    whole = tiny_run("patchcore_per_object", data, tmp_path / "b", protocol="visa_1_1x2", **settings)
    run = extend(parent.path, ["cashew"], Progress(-1))
    for name in ("metrics.csv", "scores.csv.gz", "calibration.csv.gz"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert run.record.thresholds == whole.record.thresholds
    images = data / "candle/Data/Images/Anomaly"
    limits = run.record.thresholds.objects["candle"]
    for kind, limit in (
        (None, limits.frozen_image),
        ("frozen", limits.frozen_image),
        ("own", limits.own_image),
    ):
        table = run.predict(images, object="candle", threshold=kind)
        assert set(table["threshold"]) == {limit}
        assert (table["decision"] == "defective").tolist() == (table["score"] > limit).tolist()


def test_another_order_is_named_as_run_would(two_objects, data, tmp_path):
    parent = two_objects("patchcore_per_object")
    first = load_run(
        tiny_run("patchcore_per_object", data, tmp_path, protocol="visa_1_0", order=("cashew",)).path
    )
    run = extend(first.path, ["candle"], Progress(-1))
    assert run.record.protocol.id == "visa_1_1+cashew-candle"
    assert run.path.is_relative_to(tmp_path / "runs")
    assert parent.record.protocol.id == "visa_1_1"


def test_a_protocol_without_increments():
    protocol = resolve_protocol("parts_2_0", ["nut", "bolt", "cap"])
    assert protocol.experiences == (("nut", "bolt"),) and protocol.id == "parts_2_0"


# how the run or the data are changed, arguments after RUN, and what the line says
WRONG = {
    "learnt already": (None, ["--object", "candle"], "has already learnt 'candle'"),
    "unknown object": (None, ["--object", "cashews"], "cashews"),
    "too many objects": (None, ["--object", "cashew,pcb1"], "adds 1 objects per experience"),
    "no object": (None, ["--object", ","], "contains no names"),
    "data moved": (None, ["--object", "cashew", "--data-root", "{}/nowhere"], "nowhere is not a folder"),
    "other images": ("data", ["--object", "cashew", "--data-root", "{}/visa"], "of 'candle'"),
    "unfinished": ('"complete"|"failed"', ["--object", "cashew"], "is failed, not complete"),
    "unseen objects": ('"eval_unseen": false|"eval_unseen": true', ["--object", "cashew"], "--eval-unseen"),
    "no results folder": ("", ["--object", "cashew"], "give --results DIR"),
}


@pytest.mark.parametrize("row", WRONG)
def test_bad_input(row, two_objects, data, tmp_path):
    change, arguments, words = WRONG[row]
    run = two_objects("patchcore_per_object").path
    if change == "data":
        shutil.copytree(data, tmp_path / "visa")
        table = tmp_path / "visa/split_csv/1cls.csv"
        rows = table.read_text().splitlines(keepends=True)
        table.write_text("".join(r for r in rows if not ("candle" in r and "Anomaly/000" in r)))
    elif change is not None:
        shutil.copytree(run, tmp_path / "seed0")
        run = tmp_path / "seed0"
        if change:
            old, new = change.split("|")
            text = (run / "run.json").read_text()
            assert old in text
            (run / "run.json").write_text(text.replace(old, new))
    before = sorted(tmp_path.rglob("*"))
    done = invoke(run, *(a.format(tmp_path) for a in arguments))
    assert done.exit_code == 2, done.output
    assert words in done.stderr and done.stderr.count("error:") == 1
    assert done.stdout == "" and sorted(tmp_path.rglob("*")) == before


def test_a_joint_run_cannot_be_extended(two_objects, tmp_path):
    copy = tmp_path / "seed0"
    shutil.copytree(two_objects("iuf").path, copy)
    content = json.loads((copy / "run.json").read_text())
    content["recipe"]["stream"] = "joint"
    (copy / "run.json").write_text(json.dumps(content))
    done = invoke(copy, "--object", "cashew")
    assert done.exit_code == 2 and "trained on all objects at once" in done.stderr
