"""What a user can get wrong or have on disk in an unusual form, through the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tiny import SETTINGS

from iufbench.cli import main
from iufbench.store import find_runs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def invoke(*arguments, **environment):
    return CliRunner(env=environment).invoke(main, [str(a) for a in arguments])


def run(root, results, *more, protocol="visa_2_1", strategy="finetune", **environment):
    settings = [part for s in SETTINGS for part in ("--set", s)]
    return invoke(
        "run", "--protocol", protocol, "--strategy", strategy, "--results", results, "--preset", "quick",
        *(() if root is None else ("--data-root", root)), "--device", "cpu", "--threads", "1", "-q",
        *settings, *more, **environment,
    )  # fmt: skip


def refused(done, *words):
    """One line that says all of ``words``, exit code 2, no traceback."""
    assert done.exit_code == 2, done.output
    assert done.stdout == "" and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for word in words:
        assert str(word) in done.stderr, done.stderr


@pytest.fixture
def lists(data, tmp_path):
    """JSON-lines lists of the tiny VisA, in whose folders no reader of a layout finds its way."""
    train, test = [], []
    for path in sorted(data.rglob("*.JPG")):
        name, kind = path.relative_to(data).parts[0], path.parent.name
        fields = {"filename": path.relative_to(data).as_posix(), "clsname": name, "label": 0}
        if kind == "Anomaly":
            mask = data / name / "Data/Masks/Anomaly" / f"{path.stem}.png"
            fields |= {"label": 1, "maskname": mask.relative_to(data).as_posix()}
        normals = sorted(p.name for p in path.parent.iterdir())
        is_training = kind == "Normal" and path.name in normals[:5]
        (train if is_training else test).append(json.dumps(fields))
    (tmp_path / "train.json").write_text("\n".join(train))
    (tmp_path / "test.json").write_text("\n".join(test))
    return "--train-list", tmp_path / "train.json", "--test-list", tmp_path / "test.json"


def test_lists_tell_the_objects_of_a_custom_data_set(data, lists, tmp_path):
    done = run(data, tmp_path / "r", *lists, protocol="mine_2_1")
    assert done.exit_code == 0, done.output
    (found,), _ = find_runs(tmp_path / "r")
    assert found.objects == ("candle", "capsules", "cashew")


def test_synthetic_images_stay_synthetic_when_read_through_lists(data, lists, tmp_path):
    assert "SYNTHETIC" in run(data, tmp_path / "r", *lists).stdout
    (found,), _ = find_runs(tmp_path / "r")
    assert found.synthetic and found.info["dataset"]["name"] == "visa-synthetic"


def test_lists_are_not_silently_ignored(lists, tmp_path):
    refused(run(None, tmp_path / "r", *lists, "--dry-run", protocol="elpv_1_1"), "--train-list", "elpv")


def test_elpv_needs_no_folder_beside_other_data_sets(tmp_path):
    pytest.importorskip("elpv_dataset")
    done = run(None, tmp_path / "r", "--dry-run", protocol="elpv_1_1", IUFBENCH_DATA=str(tmp_path))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("protocol", ["vissa_2_1", "VISA_2_1", "VisA_2_1"])
def test_a_mistyped_data_set_is_recognised(data, tmp_path, protocol):
    root = None if protocol == "vissa_2_1" else data
    refused(run(root, tmp_path / "r", protocol=protocol), "did you mean 'visa'")
