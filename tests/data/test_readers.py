"""Small data sets of every layout, valid and with every kind of user error."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iufbench.data.datasets import open_dataset
from iufbench.data.masks import read_mask
from iufbench.data.readers.elpv import read_elpv
from iufbench.data.readers.json_lists import read_json_lists
from iufbench.data.readers.mvtec import read_mvtec
from iufbench.data.readers.visa import read_visa
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError


def put(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 9), value, dtype=np.uint8)).save(path)
    return path


def mvtec_folder(root: Path) -> Path:
    for name in ("nut", "bolt"):
        for k in range(3):
            put(root / name / "train" / "good" / f"{k:03d}.png")
        put(root / name / "test" / "good" / "000.png")
        put(root / name / "test" / "dent" / "000.png")
        put(root / name / "ground_truth" / "dent" / "000_mask.png", 255)
    return root


VISA_ROWS = [
    ["candle", "train", "normal", "candle/Data/Images/Normal/0.JPG", ""],
    ["candle", "test", "normal", "candle/Data/Images/Normal/1.JPG", ""],
    ["candle", "test", "anomaly", "candle/Data/Images/Anomaly/0.JPG", "candle/Data/Masks/Anomaly/0.png"],
    ["cashew", "test", "anomaly", "cashew/Data/Images/Anomaly/0.JPG", "cashew/Data/Masks/Anomaly/0.png"],
    ["cashew", "train", "normal", "cashew/Data/Images/Normal/0.JPG", ""],
]


def visa_folder(root: Path, rows: list[list[str]] = VISA_ROWS, end: str = "\n") -> Path:
    for row in VISA_ROWS:
        for name in filter(None, row[3:]):
            put(root / name)
    write_visa_list(root, rows, end)
    return root


def write_visa_list(root: Path, rows: list[list[str]], end: str = "\n") -> None:
    (root / "split_csv").mkdir(exist_ok=True)
    lines = [",".join(row) for row in [["object", "split", "label", "image", "mask"], *rows]]
    (root / "split_csv" / "1cls.csv").write_bytes((end.join(lines) + end).encode())


def json_folder(root: Path) -> tuple[Path, Path, Path]:
    """(root, train list, test list) over the same files as mvtec_folder."""
    mvtec_folder(root)
    train, test = [], []
    for s in read_mvtec(root).samples:
        line = {"filename": s.image.relative_to(root).as_posix(), "label": s.label, "clsname": s.object}
        line["label_name"] = "defective" if s.label else "good"
        if s.mask:
            line["maskname"] = s.mask.relative_to(root).as_posix()
        (train if s.split == "train" else test).append(line)
    lists = root / "train.json", root / "test.json"
    for path, lines in zip(lists, (train, test)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root, *lists


def relative(dataset: DataSet) -> list[tuple]:
    return [
        (s.image.relative_to(dataset.root).as_posix(), s.object, s.split, s.label, s.defect)
        for s in dataset.samples
    ]


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


# MVTec layout


def test_mvtec_samples_are_sorted_and_complete(tmp_path: Path):
    dataset = read_mvtec(mvtec_folder(tmp_path), name="mine")
    assert dataset.name == "mine" and dataset.objects == ("bolt", "nut")
    assert relative(dataset)[:5] == [
        ("bolt/train/good/000.png", "bolt", "train", 0, "good"),
        ("bolt/train/good/001.png", "bolt", "train", 0, "good"),
        ("bolt/train/good/002.png", "bolt", "train", 0, "good"),
        ("bolt/test/dent/000.png", "bolt", "test", 1, "dent"),
        ("bolt/test/good/000.png", "bolt", "test", 0, "good"),
    ]
    assert dataset.samples[3].mask == tmp_path / "bolt/ground_truth/dent/000_mask.png"


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".tif", ".TIFF"])
def test_mvtec_takes_images_of_any_usual_kind(tmp_path: Path, suffix: str):
    mvtec_folder(tmp_path)
    put(tmp_path / "nut" / "test" / "good" / f"more{suffix}")
    assert read_mvtec(tmp_path).counts()["nut"]["test_good"] == 2


def test_mvtec_masks_may_have_the_name_of_the_image(tmp_path: Path):
    mvtec_folder(tmp_path)
    mask = tmp_path / "nut/ground_truth/dent/000_mask.png"
    renamed = mask.rename(mask.with_name("000.bmp"))
    assert next(s.mask for s in read_mvtec(tmp_path).samples if s.object == "nut" and s.label) == renamed


def test_mvtec_masks_in_a_folder_per_image_are_one_mask(tmp_path: Path):
    """MVTec LOCO keeps ground_truth/<defect>/000/000.png, 001.png, ...: a file per region."""
    single = read_mvtec(mvtec_folder(tmp_path)).fingerprint()
    folder = tmp_path / "nut/ground_truth/dent/000"
    (tmp_path / "nut/ground_truth/dent/000_mask.png").unlink()
    masks = [np.zeros((6, 9), np.uint8) for _ in range(3)]
    for k, mask in enumerate(masks):
        mask[k, 2 * k : 2 * k + 2] = 255 - k
        put(folder / f"{k:03d}.png")
        Image.fromarray(mask).save(folder / f"{k:03d}.png")
    (folder / "Thumbs.db").write_bytes(b"x")
    dataset = read_mvtec(tmp_path)
    sample = next(s for s in dataset.samples if s.object == "nut" and s.label)
    assert sample.mask_files == tuple(folder / f"{k:03d}.png" for k in range(3))
    np.testing.assert_array_equal(read_mask(sample), sum(masks) > 0)
    several = dataset.fingerprint()
    assert several != single
    with (folder / "002.png").open("ab") as stream:
        stream.write(b"x")
    assert dataset.fingerprint() != several


def test_mvtec_skips_text_and_hidden_files_everywhere(tmp_path: Path):
    clean = relative(read_mvtec(mvtec_folder(tmp_path)))
    for folder in (
        "",
        "nut",
        "nut/train",
        "nut/train/good",
        "nut/test",
        "nut/test/dent",
        "nut/ground_truth/dent",
    ):
        for name in ("license.txt", "README.md", "Thumbs.db", ".DS_Store", "._000.png", "0.json", "a.XML"):
            (tmp_path / folder / name).write_bytes(b"x")
        for name in (
            "__MACOSX",
            ".cache",
            "@eaDir",
            "$RECYCLE.BIN",
            "System Volume Information",
            "lost+found",
        ):
            put(tmp_path / folder / name / "000.png")
    dataset = read_mvtec(tmp_path)
    assert relative(dataset) == clean
    assert dataset.notes == ("91 files and folders that are not images, skipped: such as $RECYCLE.BIN",)


def test_mvtec_understands_ok_for_good(tmp_path: Path):
    mvtec_folder(tmp_path)
    for folder in ("train", "test"):
        (tmp_path / "nut" / folder / "good").rename(tmp_path / "nut" / folder / "ok")
    dataset = read_mvtec(tmp_path)
    assert dataset.counts()["nut"] == dataset.counts()["bolt"]
    assert {s.defect for s in dataset.samples if not s.label} == {"good"}


def test_mvtec_objects_without_ground_truth_have_no_masks(tmp_path: Path):
    mvtec_folder(tmp_path)
    shutil.rmtree(tmp_path / "nut" / "ground_truth")
    dataset = read_mvtec(tmp_path)
    assert dataset.has_masks and dataset.is_masked("bolt") and not dataset.is_masked("nut")
    assert dataset.notes == ("no ground_truth folder, so image metrics only: nut",)
    shutil.rmtree(tmp_path / "bolt" / "ground_truth")
    dataset = read_mvtec(tmp_path)
    assert not dataset.has_masks and all(s.mask is None for s in dataset.samples)


def test_mvtec_reads_only_the_objects_asked_for(tmp_path: Path):
    mvtec_folder(tmp_path)
    shutil.rmtree(tmp_path / "bolt" / "train")
    assert read_mvtec(tmp_path, objects=["nut"]).objects == ("nut",)


MVTEC_MISTAKES = {
    "train missing": (lambda r: shutil.rmtree(r / "nut/train"), "nut/train is missing"),
    "train empty": (
        lambda r: [p.unlink() for p in (r / "nut/train/good").iterdir()],
        "no training images in",
    ),
    "train/good missing": (lambda r: shutil.rmtree(r / "nut/train/good"), "nut/train/good"),
    "train has defects": (
        lambda r: put(r / "nut/train/dent/000.png"),
        "nut/train/dent: training images must be",
    ),
    "test missing": (lambda r: shutil.rmtree(r / "nut/test"), "nut/test is missing"),
    "test empty": (
        lambda r: [shutil.rmtree(p) for p in (r / "nut/test").iterdir()],
        "no test images in",
    ),
    "mask missing": (lambda r: (r / "nut/ground_truth/dent/000_mask.png").unlink(), "000.png has no mask"),
    "two masks": (lambda r: put(r / "nut/ground_truth/dent/000_mask.bmp"), "two masks"),
    "not an image": (
        lambda r: (r / "nut/test/good/notes.docx").write_bytes(b"x"),
        "notes.docx is not an image",
    ),
    "no extension": (lambda r: (r / "nut/test/good/000").write_bytes(b"x"), "good/000 is not an image"),
    "image at the wrong level": (lambda r: put(r / "nut/test/000.png"), "test/000.png is outside"),
    "folder of masks empty": (
        lambda r: (r / "nut/ground_truth/dent/001").mkdir(),
        "nut/ground_truth/dent/001 has no mask",
    ),
    "mask as file and as folder": (
        lambda r: put(r / "nut/ground_truth/dent/000/0.png"),
        "two masks of one image",
    ),
    "folder among images": (lambda r: put(r / "nut/test/dent/more/1.png"), "unexpected folder"),
    "folder that is no object": (lambda r: (r / "scripts").mkdir(), "scripts/train is missing"),
}


@pytest.mark.parametrize("mistake", MVTEC_MISTAKES)
def test_mvtec_errors_are_named(tmp_path: Path, mistake: str):
    spoil, expected = MVTEC_MISTAKES[mistake]
    spoil(mvtec_folder(tmp_path))
    message = error_of(lambda: read_mvtec(tmp_path)).replace(os.sep, "/")
    assert expected in message and str(tmp_path.as_posix()) in message


def test_mvtec_roots_that_are_none(tmp_path: Path):
    message = error_of(lambda: read_mvtec(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in message and "--synthetic" in message and "unpack" in message
    assert "contains no objects" in error_of(lambda: read_mvtec(tmp_path))
    mvtec_folder(tmp_path / "top")
    assert "use that as the data root" in error_of(lambda: read_mvtec(tmp_path, objects=["nut", "bolt"]))
    assert "looks like a single object" in error_of(lambda: read_mvtec(tmp_path / "top" / "nut"))
    file = put(tmp_path / "file.png")
    assert "is not a folder" in error_of(lambda: read_mvtec(file))


@pytest.mark.parametrize("read", ["mvtec", "visa", "json"])
def test_objects_that_are_not_there(tmp_path: Path, read: str):
    if read == "mvtec":
        root, name, near = mvtec_folder(tmp_path), "nuts", "nut"
        call = lambda objects: read_mvtec(root, objects=objects)  # noqa: E731
    elif read == "visa":
        root, name, near = visa_folder(tmp_path), "candles", "candle"
        call = lambda objects: read_visa(root, objects=objects)  # noqa: E731
    else:
        (root, train, test), name, near = json_folder(tmp_path), "nuts", "nut"
        call = lambda objects: read_json_lists(root, train, test, "x", objects=objects)  # noqa: E731
    message = error_of(lambda: call([near, name]))
    assert "lacks 1 of 2 objects" in message and name in message and f"did you mean {near!r}" in message
    assert "requested twice" in error_of(lambda: call([near, near]))
    assert "no objects requested" in error_of(lambda: call([]))


# VisA layout


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_visa_list_with_either_line_end(tmp_path: Path, end: str):
    dataset = read_visa(visa_folder(tmp_path, end=end))
    assert relative(dataset) == [
        ("candle/Data/Images/Normal/0.JPG", "candle", "train", 0, "good"),
        ("candle/Data/Images/Anomaly/0.JPG", "candle", "test", 1, "anomaly"),
        ("candle/Data/Images/Normal/1.JPG", "candle", "test", 0, "good"),
        ("cashew/Data/Images/Normal/0.JPG", "cashew", "train", 0, "good"),
        ("cashew/Data/Images/Anomaly/0.JPG", "cashew", "test", 1, "anomaly"),
    ]
    assert dataset.samples[1].mask == tmp_path / "candle/Data/Masks/Anomaly/0.png"


def test_visa_list_may_have_a_byte_order_mark_and_blank_lines(tmp_path: Path):
    table = visa_folder(tmp_path) / "split_csv" / "1cls.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes() + b"\n\n")
    assert len(read_visa(tmp_path).samples) == len(VISA_ROWS)


NORMAL, ANOMALY = VISA_ROWS[1][3], VISA_ROWS[2][3]
VISA_MISTAKES = {
    "parent folder": (
        ["candle", "test", "normal", "candle/../../secret.JPG", ""],
        "not a relative path below",
    ),
    "absolute path": (["candle", "test", "normal", "/etc/passwd", ""], "not a relative path below"),
    "windows path": (["candle", "test", "normal", "C:\\x.JPG", ""], "not a relative path below"),
    "windows parent": (["candle", "test", "normal", "..\\x.JPG", ""], "not a relative path below"),
    "home": (["candle", "test", "normal", "~/x.JPG", ""], "not a relative path below"),
    "no image": (["candle", "test", "normal", "", ""], "not a relative path below"),
    "mask outside": (
        ["candle", "test", "anomaly", "candle/new.JPG", "../m.png"],
        "not a relative path below",
    ),
    "listed twice": (["candle", "test", "normal", VISA_ROWS[0][3], ""], "is already listed"),
    "mask listed twice": (
        ["candle", "test", "anomaly", "candle/n.JPG", VISA_ROWS[2][4]],
        "is already listed",
    ),
    "unknown split": (["candle", "val", "normal", "candle/new.JPG", ""], "split is 'val'"),
    "unknown label": (["candle", "test", "bad", "candle/new.JPG", ""], "label is 'bad'"),
    "too few fields": (["candle", "test", "normal", "candle/new.JPG"], "4 fields instead of 5"),
    "anomaly in training": (
        ["candle", "train", "anomaly", "candle/n.JPG", "candle/n.png"],
        "in the training split",
    ),
    "no mask": (["candle", "test", "anomaly", "candle/new.JPG", ""], "has no mask"),
    "normal with mask": (
        ["candle", "test", "normal", "candle/new.JPG", "candle/m.png"],
        "cannot have a mask",
    ),
    "image not there": (["candle", "test", "normal", "candle/new.JPG", ""], "new.JPG does not exist (1 of 8"),
    "unclosed quote": (['"candle', "test", "normal", "candle/new.JPG", ""], "cannot be read as a CSV"),
}


@pytest.mark.parametrize("mistake", VISA_MISTAKES)
def test_visa_errors_are_named_with_their_line(tmp_path: Path, mistake: str):
    row, expected = VISA_MISTAKES[mistake]
    message = error_of(lambda: read_visa(visa_folder(tmp_path, [*VISA_ROWS, row])))
    assert expected in message and str(Path("split_csv") / "1cls.csv") in message
    assert "line 7" in message or mistake == "unclosed quote"


def test_visa_objects_without_masks_have_image_metrics(tmp_path: Path):
    rows = [[*row[:4], ""] if row[0] == "cashew" else row for row in VISA_ROWS]
    data = read_visa(visa_folder(tmp_path, rows))
    assert [data.is_masked(name) for name in data.objects] == [True, False] and data.has_masks
    assert data.notes == ("no mask in the list, so image metrics only: cashew",)
    assert not read_visa(tmp_path, objects=["cashew"]).has_masks


def test_visa_without_its_list_is_not_taken_for_another_layout(tmp_path: Path):
    shutil.rmtree(visa_folder(tmp_path) / "split_csv")
    assert "1cls.csv is missing" in error_of(lambda: open_dataset("visa", None, tmp_path))


def test_visa_files_and_lists_that_are_missing(tmp_path: Path):
    assert "--synthetic" in error_of(lambda: read_visa(tmp_path / "nowhere"))
    assert "1cls.csv is missing" in error_of(lambda: read_visa(tmp_path))
    visa_folder(tmp_path)
    shutil.rmtree(tmp_path / "cashew")
    message = error_of(lambda: read_visa(tmp_path))
    assert "line 5" in message and "3 of 7 listed files are missing" in message
    assert read_visa(tmp_path, objects=["candle"]).objects == ("candle",)
    write_visa_list(tmp_path, VISA_ROWS[:2] + VISA_ROWS[3:4])
    assert "no train image of object 'cashew'" in error_of(lambda: read_visa(tmp_path))
    write_visa_list(tmp_path, [])
    assert "contains no objects" in error_of(lambda: read_visa(tmp_path))
    (tmp_path / "split_csv" / "1cls.csv").write_text("object,set,label,image,mask\n")
    assert "line 1: the header must be" in error_of(lambda: read_visa(tmp_path))


# JSON lists


def test_json_lists_give_what_the_folder_gives(tmp_path: Path):
    root, train, test = json_folder(tmp_path)
    lists, folder = read_json_lists(root, train, test, "mine"), read_mvtec(root)
    assert lists.name == "mine" and lists.has_masks and lists.objects == folder.objects
    assert {(s.image, s.object, s.split, s.label, s.mask) for s in lists.samples} == {
        (s.image, s.object, s.split, s.label, s.mask) for s in folder.samples
    }
    assert lists.fingerprint() == folder.fingerprint()


def test_json_lists_object_comes_from_the_path_when_not_given(tmp_path: Path):
    root, train, test = json_folder(tmp_path)
    for path in (train, test):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            del line["clsname"], line["label_name"]
        path.write_text("\r\n".join(json.dumps(line) for line in lines) + "\r\n\r\n")
    dataset = read_json_lists(root, train, test, "x")
    assert dataset.objects == ("bolt", "nut")
    assert {s.defect for s in dataset.samples} == {"good", "defective"}


def test_json_lists_without_masks(tmp_path: Path):
    root, train, test = json_folder(tmp_path)
    test.write_text(test.read_text().replace("maskname", "ignored"))
    assert not read_json_lists(root, train, test, "x").has_masks


GOOD_LINE = {"filename": "nut/test/good/9.png", "label": 0, "label_name": "good", "clsname": "nut"}
JSON_MISTAKES = {
    "not json": ("{filename: nut}", "not a JSON object"),
    "not an object": ('["nut"]', "not a JSON object but list"),
    "label missing": ({**GOOD_LINE, "label": None}, "label is None"),
    "label text": ({**GOOD_LINE, "label": "1"}, "label is '1'"),
    "label true": ({**GOOD_LINE, "label": True}, "label is True"),
    "label 2": ({**GOOD_LINE, "label": 2}, "label is 2"),
    "filename number": ({**GOOD_LINE, "filename": 3}, "filename is 3, must be text"),
    "filename missing": ({**GOOD_LINE, "filename": None}, "not a relative path below"),
    "parent folder": ({**GOOD_LINE, "filename": "../x.png"}, "not a relative path below"),
    "absolute": ({**GOOD_LINE, "filename": "/x.png"}, "not a relative path below"),
    "no object": ({"filename": "x.png", "label": 0}, "clsname is missing"),
    "no mask": ({**GOOD_LINE, "label": 1, "label_name": "dent"}, "defective image without maskname"),
    "twice": ({**GOOD_LINE, "filename": "nut/test/good/000.png"}, "is already listed"),
    "also in training": ({**GOOD_LINE, "filename": "nut/train/good/000.png"}, "is already listed"),
    "not there": (GOOD_LINE, "9.png does not exist (1 of"),
}


@pytest.mark.parametrize("mistake", JSON_MISTAKES)
def test_json_errors_are_named_with_their_line(tmp_path: Path, mistake: str):
    line, expected = JSON_MISTAKES[mistake]
    root, train, test = json_folder(tmp_path)
    text = line if isinstance(line, str) else json.dumps(line)
    test.write_text(test.read_text() + text + "\n")
    message = error_of(lambda: read_json_lists(root, train, test, "x"))
    assert expected in message and f"{test}, line 5" in message


def test_json_lists_that_cannot_be_used(tmp_path: Path):
    root, train, test = json_folder(tmp_path)
    assert "cannot be read" in error_of(lambda: read_json_lists(root, root / "no.json", test, "x"))
    assert "a defective image in the training list" in error_of(
        lambda: read_json_lists(root, test, train, "x")
    )
    kept = train.read_text()
    train.write_text("\n")
    assert f"list {train} is empty" in error_of(lambda: read_json_lists(root, train, test, "x"))
    train.write_text("".join(line + "\n" for line in kept.splitlines() if "bolt" in line))
    assert "no train image of object 'nut'" in error_of(lambda: read_json_lists(root, train, test, "x"))


# ELPV


def test_elpv_split_is_fixed():
    pytest.importorskip("elpv_dataset")
    dataset = read_elpv()
    assert dataset.objects == ("mono", "poly") and not dataset.has_masks and not dataset.synthetic
    half = {"train": 200, "test_good": 100, "test_defective": 100}
    assert dataset.counts() == {"mono": half, "poly": half}
    table = {
        fields[0]: (float(fields[1]), fields[2])
        for fields in (line.split() for line in (dataset.root / "labels.csv").read_text().splitlines())
    }
    for s in dataset.samples:
        assert table[s.image.relative_to(dataset.root).as_posix()] == (float(s.label), s.object)
    assert len({s.image for s in dataset.samples}) == 800
    # Results are compared across versions of this program, so the split must never move.
    listing = "".join(
        f"{s.image.name} {s.split} {s.label}\n" for s in sorted(dataset.samples, key=lambda s: s.image)
    )
    digest = "8bf222d6ce878f772258fcd26804bc220d4bd22eef5e1d1e7d0db38f950ee05f"
    assert hashlib.sha256(listing.encode()).hexdigest() == digest
    assert read_elpv(objects=["poly", "mono"]).objects == ("poly", "mono")


def test_elpv_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install "iufbench[elpv]"' in error_of(read_elpv)


def elpv_folder(root: Path) -> Path:
    image = put(root / "images" / "cell0000.png")
    lines = []
    for k in range(400):
        path = root / "images" / f"cell{k + 1:04d}.png"
        os.link(image, path)
        probability = "0.0" if k < 300 else "1.0"
        lines.append(f"images/{path.name}  {probability}  mono\n")
    (root / "labels.csv").write_text("".join(lines))
    return root


ELPV_MISTAKES = {
    "two fields": ("images/cell0000.png 1.0", "line 401: expected 'image probability mono|poly'"),
    "unknown kind": ("images/cell0000.png 1.0 thin", "line 401: expected 'image probability mono|poly'"),
    "odd probability": ("images/cell0000.png 0.5 mono", "line 401: probability is '0.5'"),
    "no number": ("images/cell0000.png x mono", "line 401: probability is 'x'"),
    "outside": ("../cell0000.png 0.0 mono", "line 401: '../cell0000.png' is not a relative path"),
    "twice": ("images/cell0001.png 0.0 mono", "is already listed"),
    "not there": ("images/cell9.png 0.0 mono", "cell9.png does not exist (1 of 401"),
}


@pytest.mark.parametrize("mistake", ELPV_MISTAKES)
def test_elpv_errors_are_named(tmp_path: Path, mistake: str):
    line, expected = ELPV_MISTAKES[mistake]
    table = elpv_folder(tmp_path) / "labels.csv"
    table.write_text(table.read_text() + line + "\n")
    assert expected in error_of(lambda: read_elpv(tmp_path, objects=["mono"]))


def test_elpv_folders_of_ones_own(tmp_path: Path):
    assert read_elpv(elpv_folder(tmp_path), objects=["mono"]).counts()["mono"]["train"] == 200
    assert "has 0 normal poly cells, 300 are needed" in error_of(lambda: read_elpv(tmp_path))
    assert "lacks 1 of 1 objects: thin" in error_of(lambda: read_elpv(tmp_path, objects=["thin"]))
    (tmp_path / "labels.csv").unlink()
    assert "labels.csv cannot be read" in error_of(lambda: read_elpv(tmp_path))


# What all share


def test_fingerprint_follows_content_not_place(tmp_path: Path):
    first = read_mvtec(mvtec_folder(tmp_path / "a"))
    copy = Path(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    assert read_mvtec(copy).fingerprint() == first.fingerprint()
    assert read_mvtec(copy, objects=["nut", "bolt"]).fingerprint() == first.fingerprint()
    with (copy / "nut/ground_truth/dent/000_mask.png").open("ab") as stream:
        stream.write(b"x")
    assert read_mvtec(copy).fingerprint() != first.fingerprint()
