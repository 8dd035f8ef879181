"""The synthetic data sets: layouts, determinism, exact masks, errors that leave nothing behind."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from iufbench.data.readers.mvtec import read_mvtec
from iufbench.data.readers.visa import read_visa
from iufbench.data.synthetic import DATASETS, GENERATOR_VERSION, make, preview, writer
from iufbench.data.synthetic.render import compose, get_scene, get_scenes, render_image
from iufbench.support.errors import InputError, RunError

# The object names of VisA (Zou et al., ECCV 2022).
VISA = (
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2",
    "pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum",
)  # fmt: skip
DEFECTS = [(name, kind) for name in VISA for kind in get_scene("visa", name).defects]
SMALL = {"n_train": 2, "n_good": 1, "n_defective": 3}


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_object_has_a_scene_and_at_least_four_defect_types():
    assert DATASETS == ("visa", "mvtec")
    assert tuple(get_scenes("visa")) == VISA
    assert len(get_scenes("mvtec")) == 15
    for dataset in DATASETS:
        for name, scene in get_scenes(dataset).items():
            assert len(set(scene.defects)) == len(scene.defects) >= 4, name


@pytest.mark.parametrize(("name", "kind"), DEFECTS)
def test_mask_is_where_the_picture_changed(name: str, kind: str):
    for index in range(2):
        intact, broken, mask = compose("visa", name, kind, index)
        assert broken is not None and mask is not None and mask.dtype == bool
        change = np.abs(np.clip(broken, 0, 1) - np.clip(intact, 0, 1)).max(-1)
        assert 0.003 < mask.mean() < 0.12
        assert (change[mask] > 0.03).mean() > 0.75  # what is marked has changed
        outside = (change > 0.15) & ~ndimage.binary_dilation(mask, iterations=2)
        assert outside.sum() < 0.02 * mask.sum()  # what has changed clearly is marked


def test_pictures_depend_on_every_part_of_their_key_and_on_nothing_else():
    base, none = render_image("visa", "cashew", "train", 0, 0)
    assert base.shape == (256, 256, 3) and base.dtype == np.uint8 and none is None
    render_image("visa", "pcb4", "scratch", 3, 5)  # what is drawn in between must not matter
    assert np.array_equal(base, render_image("visa", "cashew", "train", 0, 0)[0])
    for other in (("cashew", "good", 0, 0), ("cashew", "train", 1, 0), ("cashew", "train", 0, 1)):
        assert not np.array_equal(base, render_image("visa", *other)[0])
    picture, mask = render_image("visa", "cashew", "burn", 0)
    assert mask is not None and mask.shape == (256, 256) and picture.shape == base.shape


def test_objects_look_different():
    means = {name: render_image("visa", name, "train", 0)[0].astype(float) for name in VISA}
    for a in VISA:
        for b in VISA:
            if a < b:
                assert np.abs(means[a] - means[b]).mean() > 10, (a, b)


@pytest.mark.parametrize("dataset", DATASETS)
def test_same_bytes_for_any_workers_and_any_run(tmp_path: Path, dataset: str):
    objects = list(get_scenes(dataset))[3:6]
    make(tmp_path / "one", dataset, objects, **SMALL, seed=3, workers=1, progress=False)
    make(tmp_path / "two", dataset, objects, **SMALL, seed=3, workers=2, progress=False)
    call = f"make({str(tmp_path / 'fresh')!r}, {dataset!r}, {objects!r}, 2, 1, 3, seed=3, workers=1)"
    subprocess.run(
        [sys.executable, "-c", f"from iufbench.data.synthetic import make; {call}"],
        env={**os.environ, "PYTHONHASHSEED": "77"}, check=True,
    )  # fmt: skip
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "fresh")
    make(tmp_path / "other", dataset, objects, **SMALL, seed=4, workers=1, progress=False)
    pictures = [p for p in digests(tmp_path / "one") if p.endswith(("good/000.png", "Normal/0000.JPG"))]
    assert pictures
    assert all(digests(tmp_path / "one")[p] != digests(tmp_path / "other")[p] for p in pictures)


def test_a_larger_set_contains_the_smaller_one(tmp_path: Path):
    make(tmp_path / "small", "mvtec", ["wood"], 2, 1, 4, workers=1)
    make(tmp_path / "large", "mvtec", ["tile", "wood"], 3, 2, 9, workers=1)
    small, large = digests(tmp_path / "small"), digests(tmp_path / "large")
    del small["SYNTHETIC.json"]
    assert small.items() <= large.items()


def test_visa_layout(tmp_path: Path):
    root = tmp_path / "visa"
    assert make(root, "visa", ["candle", "pcb1"], 3, 2, 7, workers=1) == 24
    raw = (root / "split_csv" / "1cls.csv").read_bytes()
    assert raw.startswith(b"object,split,label,image,mask\r\n")
    assert raw.count(b"\r\n") == raw.count(b"\n") == 25
    rows = list(csv.DictReader(raw.decode().splitlines()))
    assert [r["split"] for r in rows if r["object"] == "pcb1"] == ["train"] * 3 + ["test"] * 9
    assert {r["label"] for r in rows if r["split"] == "train"} == {"normal"}
    assert rows[0]["image"] == "candle/Data/Images/Normal/0000.JPG" and rows[0]["mask"] == ""
    assert rows[5]["image"] == "candle/Data/Images/Anomaly/000.JPG"
    assert rows[5]["mask"] == "candle/Data/Masks/Anomaly/000.png"
    kinds = len(get_scene("visa", "candle").defects)
    for i in range(7):  # dealt round-robin; a mask holds its defect class, counted from 1
        values = np.unique(np.asarray(Image.open(root / f"candle/Data/Masks/Anomaly/{i:03d}.png")))
        assert values.tolist() == [0, i % kinds + 1]
    with Image.open(root / rows[0]["image"]) as image:
        assert image.format == "JPEG" and image.size == (256, 256) and image.mode == "RGB"
    data = read_visa(root)
    assert data.objects == ("candle", "pcb1") and len(data.samples) == 24
    assert sum(s.label for s in data.samples) == 14


def test_mvtec_layout(tmp_path: Path):
    root = tmp_path / "mvtec"
    assert make(root, "mvtec", ["wood", "bottle"], 3, 2, 6, workers=1) == 22
    kinds = get_scene("mvtec", "wood").defects
    wood = root / "wood"
    assert sorted(p.name for p in wood.iterdir()) == ["ground_truth", "license.txt", "test", "train"]
    assert "ynthetic" in (wood / "license.txt").read_text()
    assert sorted(p.name for p in (wood / "train" / "good").iterdir()) == ["000.png", "001.png", "002.png"]
    assert {p.name for p in (wood / "test").iterdir()} == {"good", *kinds}
    for kind in kinds:
        images = sorted(p.stem for p in (wood / "test" / kind).iterdir())
        masks = sorted(p.stem for p in (wood / "ground_truth" / kind).iterdir())
        assert masks == [f"{stem}_mask" for stem in images]
        mask = np.asarray(Image.open(wood / "ground_truth" / kind / "000_mask.png"))
        assert mask.shape == (256, 256) and np.unique(mask).tolist() == [0, 255]
    data = read_mvtec(root)
    assert data.objects == ("bottle", "wood") and len(data.samples) == 22


def test_marker_says_what_it_is(tmp_path: Path):
    make(tmp_path / "d", "visa", ["fryum"], **SMALL, seed=9, workers=1)
    marker = json.loads((tmp_path / "d" / "SYNTHETIC.json").read_text())
    assert marker["synthetic"] is True and "ynthetic" in marker["notice"]
    assert (marker["generator_version"], marker["seed"], marker["images"]) == (GENERATOR_VERSION, 9, 6)
    counts = marker["objects"]["fryum"]
    assert (counts["train"], counts["test_good"], sum(counts["test_defective"].values())) == (2, 1, 3)


def test_a_folder_in_use_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        make(tmp_path, "visa", ["fryum"], **SMALL)
    with pytest.raises(InputError, match="is a file"):
        make(tmp_path / "mine.txt", "visa", ["fryum"], **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty", "visa", ["fryum"], **SMALL, workers=1) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": "viso"}, "did you mean 'visa'"),
        ({"objects": ["candel"]}, "did you mean 'candle'"),
        ({"objects": ["candle", "candle"]}, "named twice"),
        ({"objects": []}, "at least one"),
        ({"objects": "candle"}, "list"),
        ({"n_train": 0}, "n_train"),
        ({"n_defective": -1}, "n_defective"),
        ({"n_good": 2.5}, "n_good"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 32}, "seed"),
        ({"workers": 0}, "workers"),
    ],
)
def test_bad_input_names_the_error_and_writes_nothing(tmp_path: Path, wrong: dict, message: str):
    with pytest.raises(InputError, match=message):
        make(tmp_path / "d", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        make(tmp_path / "d", "visa", ["fryum"], **SMALL, workers=1)


def test_a_parent_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        make(tmp_path / "file" / "d", "visa", ["fryum"], **SMALL, workers=1)


@pytest.mark.parametrize(
    ("trouble", "seen"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), InputError)],
)
def test_an_interrupted_call_leaves_nothing(tmp_path: Path, monkeypatch, trouble, seen):
    calls = []

    def stumble(*key):
        calls.append(key)
        if len(calls) == 3:
            raise trouble
        return render_image(*key)

    monkeypatch.setattr(writer, "render_image", stumble)
    with pytest.raises(seen):
        make(tmp_path / "d", "visa", ["fryum"], **SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_no_bar_off_terminal(tmp_path: Path, capfd):
    make(tmp_path / "d", "visa", ["fryum"], **SMALL, workers=1)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_preview(tmp_path: Path):
    preview(tmp_path / "new" / "sheet.png", "visa", ["fryum", "pcb2"])
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 1500 and sheet.height > 350
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["sheet.png"]
    with pytest.raises(InputError, match="no synthetic object"):
        preview(tmp_path / "x.png", "visa", ["bottle"])
    with pytest.raises(RunError, match="cannot write"):
        preview(tmp_path / "new" / "sheet.png" / "x.png", "visa", ["fryum"])
