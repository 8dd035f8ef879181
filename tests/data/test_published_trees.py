"""The readers on the complete file lists of MVTec AD and VisA: exactly the published objects and counts."""

import csv
import gzip
import hashlib
import io
import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import yaml

from iufbench.data.images import load_image
from iufbench.data.listed import listed
from iufbench.data.masks import load_mask
from iufbench.data.readers.mvtec import read_mvtec
from iufbench.data.readers.visa import read_visa
from iufbench.data.samples import DataSet

HERE = Path(__file__).parent
CARDS = HERE.parents[1] / "benchmarks" / "datasets"
FACTS = json.loads((HERE / "facts" / "dataset_facts.json").read_text())
PROTOCOLS = json.loads((HERE / "facts" / "protocols.json").read_text())["protocols"]
KEYS = {"mvtec": "mvtec_ad", "visa": "visa"}


@pytest.fixture(scope="module")
def mvtec(mvtec_tree: Path) -> DataSet:
    return read_mvtec(mvtec_tree)


@pytest.fixture(scope="module")
def visa(visa_tree: Path) -> DataSet:
    return read_visa(visa_tree)


@pytest.fixture(params=["mvtec", "visa"])
def dataset(request: pytest.FixtureRequest) -> DataSet:
    return request.getfixturevalue(request.param)


def test_objects_and_counts_are_the_published_ones(dataset: DataSet):
    classes = FACTS[KEYS[dataset.name]]["classes"]
    expected = {
        name: {
            "train": facts["train_good"],
            "test_good": facts["test_good"],
            "test_defective": facts["test_defective"],
        }
        for name, facts in classes.items()
    }
    assert dataset.counts() == expected
    assert list(dataset.objects) == sorted(classes)
    assert len(dataset.samples) == FACTS[KEYS[dataset.name]]["totals"]["images"]
    assert dataset.has_masks and not dataset.synthetic


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_protocols_get_their_published_image_counts(protocol: str, request: pytest.FixtureRequest):
    name = protocol.split("_")[0]
    dataset = request.getfixturevalue(name)
    facts = PROTOCOLS[protocol]
    tests = [len(dataset.select("test", objects)) for objects in facts["experiences"]]
    assert list(accumulate(tests)) == facts["test_images_one_for_more"]
    trains = [len(dataset.select("train", objects)) for objects in facts["experiences"]]
    if name == "mvtec":
        assert trains == facts["train_images_one_for_more"]
    else:  # One-for-More trains VisA on 200 images an object; the official split has more
        classes = FACTS["visa"]["classes"]
        assert trains == [sum(classes[o]["train_good"] for o in objects) for objects in facts["experiences"]]


def test_every_mvtec_sample_is_as_listed(mvtec: DataSet, mvtec_tree: Path):
    with gzip.open(HERE / "facts" / "mvtec_files.csv.gz", "rt") as stream:
        listed = {
            (row["class"], row["split"], row["defect_type"], row["image"], row["mask"])
            for row in csv.DictReader(stream)
        }
    read = {
        (
            s.object,
            s.split,
            s.defect,
            s.image.relative_to(mvtec_tree).as_posix(),
            s.mask.relative_to(mvtec_tree).as_posix() if s.mask else "",
        )
        for s in mvtec.samples
    }
    assert read == listed
    assert all(s.label == (s.defect != "good") for s in mvtec.samples)


def test_every_visa_sample_is_as_listed(visa: DataSet, visa_tree: Path):
    table = gzip.decompress((HERE / "facts" / "visa_1cls.csv.gz").read_bytes())
    assert hashlib.sha256(table).hexdigest() == FACTS["visa"]["1cls_sha256"]
    assert b"\r\n" in table
    listed = {tuple(row) for row in csv.reader(io.StringIO(table.decode(), newline=""))}
    read = {
        (
            s.object,
            s.split,
            "anomaly" if s.label else "normal",
            s.image.relative_to(visa_tree).as_posix(),
            s.mask.relative_to(visa_tree).as_posix() if s.mask else "",
        )
        for s in visa.samples
    }
    assert read == listed - {("object", "split", "label", "image", "mask")}


def test_training_is_normal_only_and_shares_nothing_with_the_test(dataset: DataSet):
    assert all(s.label == 0 and s.mask is None for s in dataset.select("train"))
    train, test = ({s.image for s in dataset.select(split)} for split in ("train", "test"))
    assert not train & test
    assert len(train) + len(test) == len(dataset.samples)


def test_grey_images_and_masks_of_both_data_sets_load(mvtec: DataSet, visa: DataSet):
    grid = load_image(mvtec.select("train", ["grid"])[0].image, 32)
    assert grid.shape == (32, 32, 3) and grid.dtype == np.uint8
    assert (grid[..., 0] == grid[..., 1]).all() and (grid[..., 0] == grid[..., 2]).all()
    # The trees' masks mark a quarter of the image, with 255 in MVTec AD and with 1 and 2 in VisA.
    for dataset in (mvtec, visa):
        defective = next(s for s in dataset.samples if s.label)
        assert load_mask(defective, 48).mean() == 0.25


def test_chosen_objects_keep_the_order_given(mvtec_tree: Path, visa_tree: Path):
    assert read_mvtec(mvtec_tree, objects=["zipper", "cable"]).objects == ("zipper", "cable")
    some = read_visa(visa_tree, name="mine", objects=["pcb4", "candle"], synthetic=True)
    assert some.objects == ("pcb4", "candle") and some.name == "mine" and some.synthetic
    assert list(dict.fromkeys(s.object for s in some.samples)) == ["pcb4", "candle"]


@pytest.mark.parametrize("name", ["mvtec", "visa", "elpv"])
def test_cards_share_their_keys_and_add_up(name: str):
    card = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
    assert {
        "name",
        "title",
        "version",
        "layout",
        "objects",
        "counts",
        "licence",
        "home",
        "download",
        "source",
    } <= set(card)
    assert card["name"] == name
    assert card["objects"] == list(card["counts"]) == sorted(card["objects"])
    assert set(card["download"]) == {"url", "archive", "bytes", "sha256"}
    if name in KEYS:
        facts = FACTS[KEYS[name]]
        assert {k: card["download"][k] for k in ("archive", "bytes", "sha256")} == {
            k: facts[k] for k in ("archive", "bytes", "sha256")
        }


def test_cards_hold_what_is_read(dataset: DataSet):
    card = yaml.safe_load((CARDS / f"{dataset.name}.yaml").read_text())
    assert card["counts"] == dataset.counts()


@pytest.mark.parametrize(("name", "facts"), [("mvtec", "mvtec_files"), ("visa", "visa_1cls")])
def test_the_lists_that_come_with_iufbench_are_the_official_ones(name, facts):
    found = listed(name, ())
    assert found is not None and listed("mpdd", ()) is None
    own = sorted(
        (str(s.image.relative_to(name)), s.object, s.split == "test", s.label) for s in found.samples
    )
    rows = csv.DictReader(
        gzip.decompress((HERE / f"facts/{facts}.csv.gz").read_bytes()).decode().splitlines()
    )
    normal = {"normal", "good"}
    official = [
        (r["image"], r.get("object") or r["class"], r["split"] == "test",
         int((r.get("label") or r["defect_type"]) not in normal))
        for r in rows
    ]  # fmt: skip
    assert own == sorted(official) and len(own) > 5000
