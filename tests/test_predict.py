"""``iufbench predict``: new images get the scores of the evaluation, or one line of error."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from iufbench.cards.protocols import Protocol
from iufbench.cli.main import main
from iufbench.data.datasets import open_dataset
from iufbench.data.given import given_images
from iufbench.engine.predict import Predictor
from iufbench.reporting.heatmaps import Scale, overlay
from iufbench.reporting.store import load_run
from iufbench.streams.streams import test_samples as evaluated_samples
from iufbench.support.errors import InputError


def invoke(*arguments, stdin=None):
    return CliRunner().invoke(main, ["predict", *map(str, arguments), "-q"], input=stdin)


def stored_scores(run, name):
    """Image name -> score of an object after the last experience."""
    rows = run.scores()
    rows = rows[(rows["experience"] == len(run.experiences) - 1) & (rows["object"] == name)]
    return dict(zip(rows["image"], rows["score"]))


@pytest.mark.parametrize(
    ("strategy", "object"),
    [("iuf", "auto"), ("patchcore_per_object", "auto"), ("patchcore_oracle", "capsules")],
)
def test_scores_are_those_of_the_run(two_objects, data, strategy, object):
    run = two_objects(strategy)
    stored = stored_scores(run, "capsules")
    table = run.predict([data / name for name in stored], object=object)
    assert table["score"].tolist() == pytest.approx(list(stored.values()), rel=1e-5)
    alone = run.predict(data / min(stored), object=object)
    assert alone["score"].tolist() == pytest.approx([stored[min(stored)]], rel=1e-5)


def test_the_same_batch_gives_the_same_bits(two_objects, data):
    run = two_objects("iuf")
    dataset = open_dataset("visa", ["candle"], data)
    (samples,) = evaluated_samples(dataset, Protocol("one", "visa", (("candle",),)))  # as evaluated
    stored = stored_scores(run, "candle")
    names = [s.image.relative_to(data).as_posix() for s in samples]
    table = run.predict([s.image for s in samples])
    assert table["score"].tolist() == [stored[name] for name in names]


def test_a_strategy_that_routes_names_the_object(two_objects, data):
    run = two_objects("patchcore_per_object")
    rows = run.scores()
    rows = rows[(rows["experience"] == 1) & (rows["object"] == "candle")]
    table = run.predict([data / name for name in rows["image"]])
    assert table["object"].tolist() == rows["routed"].tolist()


def test_maps_do_not_pile_up(two_objects, data):
    predictor = Predictor(two_objects("iuf"))
    predictor.plan = replace(predictor.plan, recipe=replace(predictor.plan.recipe, evaluation_batch_size=2))
    image = data / "candle/Data/Images/Normal/0006.JPG"
    alive = []
    for prediction in predictor.predictions([image] * 8):
        alive.append(weakref.ref(prediction.map.base if prediction.map.base is not None else prediction.map))
    assert sum(ref() is not None for ref in alive) <= 2  # the last batch


def test_output_folder_and_both_formats(two_objects, data, tmp_path):
    run, images = two_objects("patchcore_per_object"), data / "candle/Data/Images/Anomaly"
    out = tmp_path / "out"
    done = invoke(run.path, images, "--out", out)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == sorted(str(p) for p in images.iterdir())
    assert {row["decision"] for row in rows} == {None}  # the run has no thresholds
    written = list(csv.DictReader(io.StringIO((out / "predictions.csv").read_text())))
    assert [float(row["score"]) for row in written] == [row["score"] for row in rows]
    for line, row in zip((out / "predictions.jsonl").read_text().splitlines(), written):
        assert json.loads(line)["map"] == row["map"]
        kept = np.load(out / row["map"])
        assert kept.dtype == np.float16 and kept.shape == (224, 224)
        with Image.open(out / row["overlay"]) as picture, Image.open(row["image"]) as original:
            assert picture.size == original.size  # small images are not enlarged
    about = json.loads((out / "about.json").read_text())
    assert about["run"] == run.id and about["images"] == 4 and about["synthetic"] is True
    listed = invoke(run.path, "-", "--format", "csv", stdin=f"{rows[2]['image']}\n\n{rows[0]['image']}\n")
    table = list(csv.DictReader(io.StringIO(listed.stdout)))
    assert [float(row["score"]) for row in table] == pytest.approx(
        [rows[2]["score"], rows[0]["score"]], rel=1e-5
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_overlay_has_colour_only_where_the_map_is_high():
    grey = np.full((40, 80, 3), 128, dtype=np.uint8)
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[:, 6:] = 5.0
    shown = np.asarray(Image.open(io.BytesIO(overlay(grey, heat, Scale(1.0, 2.0)))))
    assert (shown[:, :40] == 128).all()
    assert (shown[:, 75:, 0] > shown[:, 75:, 2] + 50).all()  # red, not blue


def test_a_run_needs_no_data(two_objects, data, tmp_path):
    """The run is copied, with a nonexistent data location."""
    copy = tmp_path / "seed0"
    shutil.copytree(two_objects("iuf").path, copy)
    text = (copy / "run.json").read_text()
    (copy / "run.json").write_text(text.replace(str(data), str(tmp_path / "gone")))
    image = data / "candle/Data/Images/Normal/0006.JPG"
    here, there = (run.predict(image)["score"][0] for run in (load_run(copy), two_objects("iuf")))
    assert here == there


@pytest.fixture
def folder(tmp_path, data):
    """A folder with valid and invalid files."""
    place = tmp_path / "given"
    (place / "texts").mkdir(parents=True)
    (place / "texts/readme.txt").write_text("nothing to see")
    (place / "web.png").write_text("<html>404</html>")
    (place / "empty.jpg").touch()
    whole = (data / "candle/Data/Images/Normal/0006.JPG").read_bytes()
    (place / "good.jpg").write_bytes(whole)
    (place / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return place


# arguments after RUN, standard input, and what the line says
WRONG = {
    "missing file": (["{}/nowhere.png"], None, "nowhere.png does not exist"),
    "pattern without matches": (["{}/*.tiff"], None, "*.tiff does not exist, and matches nothing"),
    "missing among others": (["{}/good.jpg", "{}/nowhere.png"], None, "nowhere.png does not exist"),
    "folder without images": (["{}/texts"], None, "texts has no images"),
    "not an image": (["{}/web.png"], None, "web.png cannot be read as an image"),
    "empty file": (["{}/empty.jpg"], None, "empty.jpg is empty"),
    "cut file": (["{}/cut.jpg", "--out", "{}/../out"], None, "cut.jpg cannot be read as an image"),
    "empty list": (["-"], "\n \n", "no images given"),
    "list with a missing file": (["-"], "\nnowhere.png\n", "standard input, line 2: nowhere.png"),
    "list with a name that no file can have": (["-"], "x" * 5000, "standard input, line 1: x"),
    "unknown object": (["{}/good.jpg", "--object", "candel"], None, "did you mean 'candle'?"),
    "object not learnt": (["{}/good.jpg", "--object", "cashew"], None, "has not learnt 'cashew'"),
    "folder that exists": (["{}/good.jpg", "--out", "{}"], None, "already exists"),
    "no thresholds": (["{}/good.jpg", "--threshold", "own"], None, "has no thresholds"),
    "device": (["{}/good.jpg", "--device", "tpu"], None, "--device tpu"),
}


@pytest.mark.parametrize("row", WRONG)
def test_bad_input(row, two_objects, folder, tmp_path):
    arguments, stdin, words = WRONG[row]
    before = sorted(tmp_path.rglob("*"))
    done = invoke(two_objects("iuf").path, *(a.format(folder) for a in arguments), stdin=stdin)
    assert done.exit_code == 2, done.output
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "" and sorted(tmp_path.rglob("*")) == before


def test_a_list_names_files_by_any_bytes(two_objects, folder, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")  # Latin-1
    shutil.copy(folder / "good.jpg", path)
    done = invoke(two_objects("iuf").path, "-", stdin=os.fsencode(path) + b"\n")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["image"] == str(path)


def test_a_strategy_that_cannot_route_asks_for_the_object(two_objects, folder):
    done = invoke(two_objects("patchcore_oracle").path, folder / "good.jpg")
    assert done.exit_code == 2 and "give --object NAME (one of candle, capsules)" in done.stderr


def test_a_run_that_is_not_finished_or_lacks_its_checkpoint(two_objects, folder, tmp_path):
    copy = tmp_path / "seed0"
    shutil.copytree(two_objects("iuf").path, copy)
    text = (copy / "run.json").read_text()
    (copy / "run.json").write_text(text.replace('"complete"', '"interrupted"'))
    done = invoke(copy, folder / "good.jpg")
    assert done.exit_code == 2 and "is interrupted, not complete" in done.stderr
    (copy / "run.json").write_text(text)
    (copy / "checkpoints/experience1.pt").unlink()
    done = invoke(copy, folder / "good.jpg")
    assert done.exit_code == 1 and "experience1.pt is missing" in done.stderr


def test_a_received_checkpoint_of_other_contents_is_corrupted(two_objects, folder, tmp_path):
    """Its hash is right: only types and shapes are not those of a state."""
    run = two_objects("iuf")
    shutil.copytree(run.path, tmp_path / "run")
    file, manifest = (tmp_path / "run/checkpoints" / name for name in ("experience1.pt", "manifest.json"))
    state, hashes = torch.load(file, weights_only=True), json.loads(manifest.read_text())
    for wrong in (
        [1, 2],
        {**state, "network": None},
        {**state, "memory": torch.ones(2)},
        {**state, "clock": 1},
    ):
        torch.save(wrong, file)
        hashes["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(hashes))
        done = invoke(tmp_path / "run", folder / "good.jpg")
        assert done.exit_code == 1 and f"{file} is corrupted (" in done.stderr, done.output
        assert done.stderr.count("\n") == 1


def test_folders_are_searched_in_order(folder):
    (folder / "web.png").unlink()
    (folder / "empty.jpg").unlink()
    (folder / ".hidden.png").touch()
    assert [p.name for p in given_images([folder / "good.jpg", folder])] == [
        "good.jpg",
        "cut.jpg",
        "good.jpg",
    ]
    with pytest.raises(InputError, match="no images given"):
        given_images([])


def test_patterns_are_those_of_the_shell(folder):
    """Quoted for folders with more files than a command line holds; a file of that very name comes first."""
    assert [p.name for p in given_images(folder / "[cg]*.jpg")] == ["cut.jpg", "good.jpg"]
    assert [p.name for p in given_images(f"{folder.parent}/**/go?d.jpg")] == ["good.jpg"]
    shutil.copy(folder / "good.jpg", folder / "[cg]*.jpg")
    assert [p.name for p in given_images(folder / "[cg]*.jpg")] == ["[cg]*.jpg"]
