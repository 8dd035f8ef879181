"""The command line: exit codes, messages, and nothing written on invalid input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import tiny_settings

from iufbench.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def broken(data, tmp_path):
    """A writable copy of the data."""
    return shutil.copytree(data, tmp_path / "visa")


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def arguments(data, results, strategy="finetune", protocol="visa_2_1", *more):
    settings = [part for s in tiny_settings("finetune") for part in ("--set", s)]
    return [
        "run", "--protocol", protocol, "--strategy", strategy, "--data-root", data, "--results", results,
        "--device", "cpu", "--threads", "1", *settings, *more,
    ]  # fmt: skip


def test_a_run_leaves_a_directory_and_the_second_call_does_nothing(data, tmp_path):
    results = tmp_path / "results"
    first = invoke(*arguments(data, results))
    assert first.exit_code == 0, first.output
    assert "SYNTHETIC" in first.stdout and "image AUROC" in first.stdout and "fm" in first.stdout
    assert "images/s\n" in first.stderr and "kernels ran" not in first.stderr
    assert "experience 1/2: training" in first.stderr and "matrix_image.png" in first.stderr
    (info_file,) = results.rglob("run.json")
    info = json.loads(info_file.read_text())
    assert info["status"] == "complete" and info["dataset"]["name"] == "visa-synthetic"
    assert info["dataset"]["synthetic"] is True and info["preset"] == "quick"
    for name in ("metrics.csv", "scores.csv.gz", "train_log.csv"):
        assert (info_file.parent / name).is_file()
    stamp = info_file.stat().st_mtime_ns
    again = invoke(*arguments(data, results))
    assert again.exit_code == 0 and "already complete" in again.stderr
    assert info_file.stat().st_mtime_ns == stamp
    assert again.stdout == first.stdout
    anew = invoke(*arguments(data, results), "--restart", "-q")
    assert anew.exit_code == 0 and anew.stderr == "" and info_file.stat().st_mtime_ns != stamp

    listed = invoke("list", "runs", "--results", results, "--json")
    assert json.loads(listed.stdout)[0]["run"] == info["id"]
    shown = invoke("show", "run", info_file.parent)
    assert "image AUROC" in shown.stdout
    kept = invoke("explain", "bytes_kept", info_file.parent)
    assert "beside the deployed network" in kept.stdout
    assert str(info["costs"]["bytes_kept"]) in kept.stdout
    explained = invoke("explain", "fm", info_file.parent)
    assert (
        "SYNTHETIC" in explained.stdout and f"image: {info['summary']['image']['fm']:.3f}" in explained.stdout
    )
    tables = invoke("tables", "--results", results)
    assert tables.exit_code == 0, tables.output
    text = "".join(p.read_text() for p in (results / "tables").rglob("*.md"))
    assert "synthetic" in text.lower()
    figures = invoke("figures", "--results", results)
    assert figures.exit_code == 0, figures.output
    assert list((results / "figures").rglob("*.png"))


def test_a_dry_run_prints_the_plan_and_writes_nothing(data, tmp_path):
    done = invoke(*arguments(data, tmp_path / "results"), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "training iterations 10" in done.stdout  # 12 images then 6, batches of 4, 2 epochs: 6 + 4
    assert "parameters" in done.stdout and "visa-synthetic/visa_2_1/finetune" in done.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "finetun"}, "did you mean 'finetune'"),
        ({"protocol": "visa_8_1x5"}, "needs 13 objects, but visa has 12"),
        ({"protocol": "vsa"}, "unknown protocol"),
        ({"protocol": "visa_3_1"}, "chewinggum"),
        ({"data_root": "/nowhere"}, "--synthetic"),
        ({"more": ["--set", "base.epochs=-1"]}, "base.epochs must be >= 1"),
        ({"more": ["--set", "base.lr=abc"]}, "base.lr must be a number"),
        ({"more": ["--set", "oasa.resolutoin=3"]}, "oasa.resolution"),
        ({"more": ["--set", "nothing=3"]}, "unknown key 'nothing'"),
        ({"more": ["--backbone", "resnet18x"]}, "resnet18"),
        ({"more": ["--weights", "/nowhere.pth"]}, "/nowhere.pth"),
        ({"more": ["--device", "cuda:99"]}, "--device cuda:99"),
        ({"more": ["--device", "tpu"]}, "--device tpu"),
        ({"more": ["--preset", "fast"]}, "unknown preset 'fast'"),
        ({"more": ["--order", "candle,capsules,candel"]}, "did you mean 'candle'"),
        ({"more": ["--synthetic"]}, "cannot be given together"),
        ({"more": ["--train-list", "x.json"]}, "belong together"),
        ({"more": ["--set", "oasa.resolution=128"]}, "larger than image_size"),
        ({"more": ["--set", "image_size=50"]}, "multiples of 16"),
        ({"more": ["--set", "network.heads=3"]}, "heads"),
        ({"more": ["--init-from", "/nowhere.pth"]}, "/nowhere.pth"),
    ],
)
def test_bad_requests_end_with_one_line_and_write_nothing(data, tmp_path, change, message):
    results = tmp_path / "results"
    done = invoke(
        *arguments(
            change.get("data_root", data),
            results,
            change.get("strategy", "finetune"),
            change.get("protocol", "visa_2_1"),
            *change.get("more", []),
        )
    )
    assert done.exit_code == 2, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error:", "Error:"))]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert not results.exists()


def spoil_image(root):
    path = root / "candle/Data/Images/Normal/0002.JPG"
    path.write_bytes(path.read_bytes()[:200])
    return path.name


def replace_by_text(root):
    path = root / "cashew/Data/Images/Anomaly/001.JPG"
    path.write_text("not an image")
    return path.name


def shrink_mask(root):
    Image.fromarray(np.ones((9, 9), np.uint8)).save(root / "candle/Data/Masks/Anomaly/000.png")
    return "000.png"


def remove_mask(root):
    (root / "capsules/Data/Masks/Anomaly/002.png").unlink()
    return "002.png"


def remove_object(root):
    shutil.rmtree(root / "cashew")
    return "cashew"


def remove_training(root):
    table = root / "split_csv/1cls.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(x for x in lines if not x.startswith("cashew,train")) + "\n")
    return "cashew"


@pytest.mark.parametrize(
    "spoil", [spoil_image, replace_by_text, shrink_mask, remove_mask, remove_object, remove_training]
)
def test_broken_data_are_named_and_nothing_is_written(broken, tmp_path, spoil):
    name = spoil(broken)
    results = tmp_path / "results"
    done = invoke(*arguments(broken, results), "-q")
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and name in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not results.exists()


def test_other_data_under_a_finished_run_are_noticed(broken, tmp_path):
    results = tmp_path / "results"
    assert invoke(*arguments(broken, results), "-q").exit_code == 0
    path = broken / "candle/Data/Images/Normal/0000.JPG"
    path.write_bytes(path.read_bytes() + b"\0")
    done = invoke(*arguments(broken, results))
    assert done.exit_code == 2 and "different data" in done.stderr


def test_a_results_folder_that_cannot_be_written_is_reported_before_training(data, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = invoke(*arguments(data, blocked / "results"))
    assert done.exit_code == 2, done.output
    assert str(blocked) in done.stderr and "training" not in done.stderr


def test_an_interrupt_exits_130_with_a_hint(data, tmp_path, monkeypatch):
    import iufbench.engine.runner

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(iufbench.engine.runner, "_loop", interrupted)
    done = invoke(*arguments(data, tmp_path / "results"))
    assert done.exit_code == 130 and "interrupted" in done.stderr
    (info,) = (tmp_path / "results").rglob("run.json")
    assert json.loads(info.read_text())["status"] == "interrupted"


def test_data_commands(tmp_path):
    root = tmp_path / "made"
    made = invoke(
        "data", "make", root, "--objects", "candle", "--train", 2, "--good", 1, "--defective", 2, "-q"
    )
    assert made.exit_code == 0 and "5 synthetic images" in made.stdout
    assert invoke("data", "make", root, "-q").exit_code == 2
    assert invoke("data", "make", tmp_path / "x", "--dataset", "mvtek", "-q").exit_code == 2
    sheet = tmp_path / "sheet.png"
    assert invoke("data", "preview", sheet, "--objects", "candle").exit_code == 0
    assert Image.open(sheet).size[0] > 500


@pytest.mark.parametrize("what", ["protocols", "strategies", "datasets"])
def test_lists_are_for_people_and_for_scripts(what):
    assert len(invoke("list", what).stdout.splitlines()) > 2
    assert len(json.loads(invoke("list", what, "--json").stdout)) > 1


@pytest.mark.parametrize("name", ["fm", "acc", "bwt", "aupro_30"])
def test_explain_prints_the_formula(name):
    done = invoke("explain", name)
    assert done.exit_code == 0 and "used by" in done.stdout and "better" in done.stdout


def test_explain_suggests():
    done = invoke("explain", "fm_finall")
    assert done.exit_code == 2 and "did you mean 'fm_final'" in done.stderr


def test_show_names_what_it_does_not_know():
    assert "nn_unknown" in invoke("show", "strategy", "nn_unknown").stderr
    assert "extends" not in invoke("show", "strategy", "finetune").stdout
    assert json.loads(invoke("show", "protocol", "8-1 with 4 Steps", "--json").stdout)["id"] == "visa_8_1x4"


def test_a_run_can_be_evaluated_again_and_its_maps_kept(data, tmp_path):
    results = tmp_path / "results"
    assert invoke(*arguments(data, results), "-q").exit_code == 0
    (info,) = results.rglob("run.json")
    done = invoke("evaluate", info.parent, "--save-maps", "--objects", "candle,cashew", "-q")
    assert done.exit_code == 0, done.output
    assert "no difference" in done.stdout
    kept_maps = info.parent / "maps"
    assert kept_maps.is_dir()
    kept = sorted(p.relative_to(info.parent).as_posix() for p in info.parent.rglob("*.npz"))
    assert kept == [
        "maps/experience0/candle.npz",
        "maps/experience1/candle.npz",
        "maps/experience1/cashew.npz",
    ]
    stored = np.load(info.parent / kept[0])
    assert stored["maps"].shape == (7, 224, 224) and stored["maps"].dtype == np.float16
    assert len(stored["images"]) == 7
    assert "did you mean 'candle'" in invoke("evaluate", info.parent, "--objects", "candel").stderr
    assert invoke(*arguments(data, results), "--restart", "-q").exit_code == 0
    assert not kept_maps.exists()  # maps of another training would be shown beside the new numbers


def test_a_tampered_metric_is_found_by_evaluating_again(data, tmp_path):
    results = tmp_path / "results"
    assert invoke(*arguments(data, results), "-q").exit_code == 0
    (table,) = results.rglob("metrics.csv")
    lines = table.read_text().splitlines()
    first = lines[1].split(",")
    first[4] = "0.123"
    table.write_text("\n".join([lines[0], ",".join(first), *lines[2:]]) + "\n")
    done = invoke("evaluate", table.parent, "-q")
    assert done.exit_code == 1 and "0.123" in done.stdout
    assert "metrics.csv was changed after the run ended" in invoke("tables", "--results", results).stderr


def test_a_run_can_start_from_public_weights(data, tmp_path):
    """The released names, with a classifier of all twelve objects, as in the public checkpoints."""
    import torch

    from iufbench.models.backbone import BackboneSpec, FrozenBackbone
    from iufbench.models.iuf import IUFNetwork

    backbone = FrozenBackbone(BackboneSpec("tf_efficientnet_lite0", "package"))
    network = IUFNetwork(
        backbone.channels, objects=12, hidden=16, heads=2, feedforward=16, encoder_layers=2,
        decoder_layers=2, feature_size=(4, 4),
    )  # fmt: skip
    public = {
        "module.reconstruction."
        + n.replace("classifier.", "vitclassifiy.").replace(".blocks.", ".vit_blocks."): t
        for n, t in network.state_dict().items()
        if not n.startswith("classifier.blocks") or ".mlp." not in n
    }
    public |= {
        "module.reconstruction."
        + n.replace("classifier.blocks.", "vitclassifiy.vit_blocks.").replace(".mlp.", ".mlp.mlp."): t
        for n, t in network.state_dict().items()
        if n.startswith("classifier.blocks") and ".mlp." in n
    }
    path = tmp_path / "public.pth"
    torch.save({"state_dict": public}, path)
    plain = ["--set", "network.standardise=false", "--dry-run"]
    without = invoke(*arguments(data, tmp_path / "r", "finetune", "visa_2_1", *plain))
    given = invoke(*arguments(data, tmp_path / "r", "finetune", "visa_2_1", *plain, "--init-from", path))
    assert given.exit_code == 0 and given.stdout.splitlines()[0] != without.stdout.splitlines()[0]
    done = invoke(*arguments(data, tmp_path / "r", "finetune", "visa_2_1", "--init-from", path, "-q"))
    assert done.exit_code == 0, done.output
    torch.save({"state_dict": dict(list(public.items())[:-3])}, path)
    bad = invoke(*arguments(data, tmp_path / "r2", "finetune", "visa_2_1", "--init-from", path, "-q"))
    assert bad.exit_code == 2 and str(path) in bad.stderr and not (tmp_path / "r2").exists()


def test_a_checked_folder_is_good_or_its_faults_are_named(tmp_path):
    root = tmp_path / "parts"
    counts = ("--train", 2, "--good", 1, "--defective", 2)
    invoke("data", "make", root, "--dataset", "mvtec", "--objects", "bottle,tile", *counts, "-q")
    good = invoke("data", "check", root, "--dataset", "parts", "--workers", 1)
    assert good.exit_code == 0 and "10 images, 2 objects (no official counts), 0 errors" in good.stdout
    path = root / "tile/train/good/001.png"
    path.write_bytes(path.read_bytes()[:200])
    bad = invoke("data", "check", root, "--dataset", "parts", "--workers", 1, "--json")
    assert bad.exit_code == 1
    report = json.loads(bad.stdout)
    (finding,) = [
        found for found in report["findings"] if found["severity"] != "note"
    ]  # license.txt is noted
    assert report["counts"]["tile"] == {"train": 2, "test_good": 1, "test_defective": 2}
    assert finding["severity"] == "error" and finding["path"].endswith("tile/train/good/001.png")
    other = invoke("data", "check", root, "--dataset", "mvtec", "--workers", 1)
    assert other.exit_code == 1 and "capsule" in other.stdout


def test_a_full_disk_is_noticed_before_anything_is_done(data, tmp_path, monkeypatch):
    import shutil as library

    usage = library._ntuple_diskusage(10, 9, 2**20)
    monkeypatch.setattr("iufbench.engine.checks.shutil.disk_usage", lambda folder: usage)
    done = invoke(*arguments(data, tmp_path / "results"))
    assert done.exit_code == 2 and "only 1 MiB free" in done.stderr


def test_unseen_objects_give_forward_transfer_from_a_measured_baseline(data, tmp_path):
    from iufbench.reporting.store import load_run

    results = tmp_path / "results"
    assert invoke(*arguments(data, results), "-q").exit_code == 0
    refused = invoke(*arguments(data, results), "--eval-unseen")
    assert refused.exit_code == 2 and "without --eval-unseen" in refused.stderr
    assert invoke(*arguments(data, results), "--eval-unseen", "--restart", "-q").exit_code == 0
    (info,) = results.rglob("run.json")
    run = load_run(info.parent)
    matrix, before = run.matrix("image"), run.baseline("image")
    rows = [line.split() for line in invoke("show", "run", info.parent).stdout.splitlines()]
    frozen = next(row for row in rows if row[:1] == ["frozen"])  # the model after the base, on all objects
    assert [float(v) for v in frozen[1:4]] == pytest.approx(matrix.values[0], abs=6e-4)
    assert not np.isnan(matrix.values).any() and not matrix.seen[0, 2]
    # Objects candle and capsules are the base; cashew arrives with experience 1.
    assert run.summaries()["image"]["fwt"] == pytest.approx(matrix.values[0, 2] - before[2])
    assert "fwt" not in load_run_without_baseline(info.parent).summaries()["image"]


def load_run_without_baseline(path):
    from iufbench.reporting.store import load_run

    (path / "baseline.csv").unlink()
    return load_run(path)
