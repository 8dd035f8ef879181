"""verify and rerun: correct numbers are confirmed, and a modified one is found."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score
from tiny import tiny_run

from iufbench.cli.main import main
from iufbench.reporting.store import load_run
from iufbench.support.files import read_json, write_json
from iufbench.support.provenance import environment, source_hash
from iufbench.trust.rerun import usual_place


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A finished run in its results folder; read only."""
    return tiny_run("uniad", data, tmp_path_factory.mktemp("made") / "results", ("base.epochs=1",))


@pytest.fixture
def copied(made, tmp_path):
    """A copy of the run, to be modified."""
    place = tmp_path / "results" / "runs" / made.id
    shutil.copytree(made.path, place)
    return place


def test_a_run_as_it_was_left_is_confirmed(made):
    done = invoke("verify", made.path, "-q")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "no difference"
    assert "summaries" in done.stdout and "scores.csv.gz" in done.stdout and "2 experiences" in done.stdout


def test_image_metrics_come_from_the_scores(made):
    """Against scikit-learn: recomputed values are those of the scores in the file."""
    for (number, name), rows in made.scores().groupby(["experience", "object"]):
        matrix = made.matrix("image", "auroc")
        value = matrix.values[number, matrix.objects.index(name)]
        assert value == pytest.approx(roc_auc_score(rows["label"], rows["score"]), abs=1e-12)


def change(path, name, old, new):
    """Replace the first match of a pattern in a file of a run."""
    file = path / name
    text = gzip.decompress(file.read_bytes()).decode() if name.endswith(".gz") else file.read_text()
    changed, count = re.subn(old, new, text, count=1)
    assert count == 1
    file.write_bytes(gzip.compress(changed.encode()) if name.endswith(".gz") else changed.encode())


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (
            "metrics.csv",
            r"(candle,image,auroc),[\d.]+",
            r"\1,0.123",
            "candle, image auroc: stored 0.123, now",
        ),
        ("metrics.csv", r"0,candle,image,ap,.*\n", "", "candle, image ap: stored nan, now"),
        ("run.json", r'("acc"): [\d.]+', r"\1: 0.5", "run.json, summary image acc: stored 0.5, now"),
        ("scores.csv.gz", r"(Normal/\d+.JPG,0),[\d.]+", r"\1,99.0", "candle, image auroc: stored"),
        ("scores.csv.gz", r"0,candle,[^\n]*\n", "", "candle, image"),
    ],
)
def test_a_touched_number_is_found_without_data(copied, name, old, new, words):
    change(copied, name, old, new)
    done = invoke("verify", copied, "--scores-only", "-q")
    assert done.exit_code == 1 and words in done.stdout, done.output


def test_a_touched_pixel_metric_and_checkpoint_are_found(copied, made):
    change(copied, "metrics.csv", r"(capsules,pixel,auroc),[\d.e-]+", r"\1,0.25")
    done = invoke("verify", copied, "-q")
    assert done.exit_code == 1 and "capsules, pixel auroc: stored 0.25, now" in done.stdout
    shutil.copy(made.path / "metrics.csv", copied)
    shutil.copy(copied / "checkpoints/experience1.pt", copied / "checkpoints/experience0.pt")
    done = invoke("verify", copied, "-q")
    assert done.exit_code == 1 and "experience0.pt is corrupted (its SHA-256 is not" in done.stderr


def test_what_cannot_be_verified_is_reported(copied, tmp_path):
    (copied / "checkpoints/experience1.pt").unlink()
    done = invoke("verify", copied, "-q")
    assert done.exit_code == 1 and "experience1.pt is missing" in done.stderr
    info = read_json(copied / "run.json")
    write_json(copied / "run.json", {**info, "backbone": {**info["backbone"], "weights_sha256": "0"}})
    (copied / "checkpoints/experience1.pt").write_bytes((copied / "checkpoints/experience0.pt").read_bytes())
    assert "was run with backbone weights" in invoke("verify", copied, "-q").stderr
    info["recipe"]["base"]["lr"] = 0.5
    write_json(
        copied / "run.json",
        {**info, "recipe_hash": "0" * 8, "id": info["id"].replace(info["recipe_hash"], "0" * 8)},
    )
    done = invoke("verify", copied, "-q")
    assert done.exit_code == 1 and "base.lr was 0.5 and is" in done.stderr, done.output
    write_json(copied / "run.json", {**info, "status": "running"})
    assert "not complete" in invoke("verify", copied, "--scores-only").stderr
    done = invoke("verify", tmp_path, "-q")
    assert done.exit_code == 2 and "no run directory" in done.stderr.replace("is not a run", "no run")


def test_data_that_moved_are_named_and_data_that_changed_are_refused(copied, data, tmp_path):
    info = read_json(copied / "run.json")
    info["request"]["data_root"] = info["dataset"]["root"] = str(tmp_path / "gone")
    write_json(copied / "run.json", info)
    assert invoke("verify", copied, "-q").exit_code == 2
    moved = shutil.copytree(data, tmp_path / "moved")
    assert invoke("verify", copied, "-q", "--data-root", moved).exit_code == 0
    with next(moved.rglob("*.JPG")).open("ab") as file:
        file.write(b"x")
    done = invoke("verify", copied, "-q", "--data-root", moved)
    assert done.exit_code == 1 and "different data" in done.stderr


def test_a_run_is_repeated_bit_by_bit_in_a_folder_of_its_own(copied):
    before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
    done = invoke("rerun", copied, "-q")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "no difference"
    again = usual_place(load_run(copied)) / "runs" / load_run(copied).id
    assert again.parents[5].name == "reruns" and str(again) in done.stdout
    assert (again / "metrics.csv").read_bytes() == before[copied / "metrics.csv"]
    assert (again / "scores.csv.gz").read_bytes() == before[copied / "scores.csv.gz"]
    assert {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()} == before
    # A number that does not come out again is found; what was different around is told.
    change(copied, "metrics.csv", r"(candle,image,auroc),[\d.]+", r"\1,0.123")
    change(copied, "scores.csv.gz", r"(Normal/\d+.JPG,0),[\d.]+", r"\1,99.0")
    change(copied, "run.json", r'"torch": "[^"]+"', '"torch": "1.0"')
    done = invoke("rerun", copied, "-q")
    assert done.exit_code == 1 and "candle, image auroc: stored 0.123, now" in done.stdout
    assert (
        "1 of 35 scores differ" in done.stdout
        and "different surroundings: packages torch: 1.0 then" in done.stdout
    )
    place = copied.parents[5]
    done = invoke("rerun", copied, "-q", "--results", place)
    assert done.exit_code == 2 and "contains the run itself" in done.stderr


def test_the_code_of_a_run_needs_trust(copied, data, tmp_path, monkeypatch):
    """A run directory can name any card and any learner: none is imported without permission."""
    monkeypatch.setattr("sys.path", list(sys.path))
    ran, picture = tmp_path / "ran", next(data.rglob("*.JPG"))
    (tmp_path / "theirs.py").write_text(
        f"open({str(ran)!r}, 'a').write('x')\nfrom iufbench.strategies.uniad import UniAD\n"
    )
    card = tmp_path / "mine.yaml"
    card.write_text("extends: uniad\nlearner: theirs:UniAD\n")
    info = read_json(copied / "run.json")
    more = {"predict": [picture]}
    received = [
        {"strategy": str(card)},
        {"settings": [*info["request"]["settings"], "learner=theirs:UniAD"]},
        {"strategy": str(card.with_name("preset.yaml"))},
    ]
    card.with_name("preset.yaml").write_text("extends: uniad\npresets: {quick: {learner: theirs:UniAD}}\n")
    for changes in received:
        write_json(copied / "run.json", {**info, "request": {**info["request"], **changes}})
        for command in ("verify", "evaluate", "rerun", "predict"):
            done = invoke(command, copied, *more.get(command, []), "-q")
            assert done.exit_code == 2 and "imports 'theirs:UniAD' from" in done.stderr, (
                changes,
                done.output,
            )
            assert "--trust-code" in done.stderr and done.stderr.count("\n") == 1
    assert not ran.exists()
    write_json(copied / "run.json", {**info, "request": {**info["request"], "strategy": str(card)}})
    place = f"note: {card} imports 'theirs:UniAD' from {tmp_path / 'theirs.py'}"
    assert place in invoke("show", "strategy", card).stderr and ran.exists()
    planned = invoke(
        "run", "--protocol", "visa_2_1", "--strategy", card, "--data-root", "nowhere", "--dry-run"
    )
    assert planned.exit_code == 2 and place in planned.stderr
    other = card.rename(card.with_name("other.yaml"))
    grid = ("--protocol", "visa_2_1", "--strategy", other, "--data-root", "nowhere", "--list")
    assert f"note: {other} imports 'theirs:UniAD'" in invoke("sweep", *grid).stderr
    card.write_text(other.read_text())
    done = invoke("verify", copied, "-q", "--trust-code")
    assert done.exit_code == 1 and "learner was" in done.stderr  # it was not made with this card


def test_a_run_outside_a_results_folder_is_repeated_next_to_it(made, tmp_path):
    shutil.copytree(made.path, tmp_path / "alone")
    assert usual_place(replace(made, path=tmp_path / "alone")) == tmp_path / "alone-rerun"


def test_run_json_says_all_that_is_needed_to_repeat(made):
    info = made.info
    assert len(info["dataset"]["fingerprint"]) == len(info["backbone"]["weights_sha256"]) == 64
    assert info["dataset"]["root"] == info["request"]["data_root"]
    assert len(info["strategy"]["card_sha256"]) == len(info["strategy"]["learner_sha256"]) == 64
    assert len(info["recipe_hash"]) == 8 and info["recipe"]["base"]["epochs"] == 1
    assert info["protocol"]["experiences"] == [["candle", "capsules"], ["cashew"]]
    around = info["environment"]
    assert around["threads"] == 1 and around["device"] == "cpu" and around["processor"]
    assert {"torch", "numpy", "pillow", "avalanche-lib"} <= set(around["packages"])
    assert around["source"] == source_hash() and len(around["source"]) == 64
    assert info["command"].split()[0] == "iufbench" and info["seeds"]["training"] >= 0


def test_settings_of_the_surroundings_are_recorded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment("cpu", 1).variables["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in environment("cpu", 1).variables
    assert json.dumps(vars(environment("cpu", np.int64(1).item())))
