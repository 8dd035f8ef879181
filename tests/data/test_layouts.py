"""Every data set with a card: its tiny tree is read like the real one, with all peculiarities."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from click.testing import CliRunner

from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import resolve_protocol
from iufbench.cli.main import main
from iufbench.data.check import check_dataset, check_folder
from iufbench.data.datasets import known_orders, open_dataset
from iufbench.data.layouts import LAYOUTS
from iufbench.data.masks import load_mask
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError

USUAL = {"train": 3, "test_good": 2, "test_defective": 2}
COUNTS = {
    "loco": {"train": 3, "validation": 2, "test_good": 2, "test_defective": 4},
    "mvtec3d": {**USUAL, "validation": 2},
    "mvtec3d_trainval": {**USUAL, "train": 5},
    "eyecandies": {**USUAL, "validation": 2},
    "adam3d": {**USUAL, "validation": 2},
    "realiad_views": {"train": 15, "test_good": 10, "test_defective": 10},
    "realiad_fuiad_0.1": {"train": 15, "train_defective": 5, "test_good": 10, "test_defective": 10},
    "mvtecad2": {**USUAL, "test_good": 4, "test_defective": 4, "validation": 1},
    "dagm": {**USUAL, "train_defective": 2},
    "kolektorsdd": {"train": 4, "test_good": 1, "test_defective": 5},
    "kolektorsdd2": {**USUAL, "train_defective": 2},
    "mtd": {"train": 3, "test_good": 3, "test_defective": 2},
    "vad": {**USUAL, "train_defective": 2},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """name -> the root of its tree. Read only."""
    made: dict[object, Path] = {}

    def get(name: str) -> Path:
        make = trees.TREES[name]
        if make not in made:
            made[make] = tmp_path_factory.mktemp(make.__name__)
            make(made[make])
        return made[make]

    return get


def opened(name: str, root: Path) -> DataSet:
    """The tree with as many objects as the card has."""
    there = {p.name for p in root.rglob("*") if p.is_dir()} | {name}
    return open_dataset(name, [o for o in dataset_cards()[name].objects if o in there], root)


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_card_names_a_layout_and_every_layout_has_a_tree():
    cards = dataset_cards()
    assert {card.layout for card in cards.values()} <= set(LAYOUTS)
    assert {cards[name].layout for name in trees.TREES} | {"visa", "elpv", "flat"} == set(LAYOUTS)


@pytest.mark.parametrize("name", trees.TREES)
def test_a_tree_is_read_as_its_card_says(name, tree):
    data = opened(name, tree(name))
    wanted = COUNTS.get(name, USUAL)
    assert data.counts() == dict.fromkeys(data.objects, wanted) and len(data.objects) in (1, 2, 3)
    assert data.has_masks == (name != "vad")
    for s in data.samples:
        assert s.image.is_file() and (s.defect == "good") == (s.label == 0)
        if data.has_masks and s.split == "test":
            assert load_mask(s, 32).any() == (s.label == 1 and not s.unseen), s.image


@pytest.mark.parametrize("name", trees.TREES)
def test_training_sees_no_defective_image_unless_the_noise_is_the_point(name, tree):
    data = opened(name, tree(name))
    noisy = name == "realiad_fuiad_0.1"
    assert data.noisy_training == noisy
    assert {s.label for s in data.training()} == ({0, 1} if noisy else {0})
    noted = ("mvtec3d_trainval", "realiad_fuiad_0.1", "kolektorsdd", "mtd", "loco")
    assert bool(data.notes) == (name in noted)


# Quirks


def test_btad_objects_stay_strings_and_can_be_ordered(tree):
    data = open_dataset("btad", None, tree("btad"))
    assert data.objects == ("01", "02") and dataset_cards()["btad"].objects == ("01", "02", "03")
    protocol = resolve_protocol("btad_1_1x2", dataset_cards()["btad"].objects, ["03", "01", "02"])
    assert protocol.experiences == (("03",), ("01",), ("02",))


def test_mpdd_pairs_masks_by_name_not_by_place(tree, tmp_path):
    trees.mpdd(tmp_path)
    (tmp_path / "bracket_black/ground_truth/hole/000_mask.png").unlink()
    assert "000.png has no mask" in error_of(lambda: open_dataset("mpdd", ["bracket_black"], tmp_path))


def test_loco_unites_the_files_of_a_folder_of_masks(tree):
    data = opened("loco", tree("loco"))
    mask = load_mask(next(s for s in data.samples if s.label), 32)
    assert mask.shape == (32, 32) and mask[0, 0] and mask[16, 16]
    assert {s.defect for s in data.samples} == {"good", "logical_anomalies", "structural_anomalies"}


def test_3d_takes_colour_images_only_and_skips_calibration(tree):
    data = open_dataset("mvtec3d", None, tree("mvtec3d"))
    assert data.objects == ("bagel", "cable_gland")
    assert {s.image.parent.name for s in data.samples} == {"rgb"}
    assert {s.condition for s in opened("adam3d", tree("adam3d")).samples} == {"C"}


def test_real_iad_labels_come_from_the_class_never_from_the_mask(tree):
    data = opened("realiad_views", tree("realiad"))
    defective = [s for s in data.select("test") if s.label]
    assert [s.unseen for s in defective] == [s.mask is None for s in defective]
    assert sum(s.unseen for s in defective) == 8
    assert {s.condition for s in data.samples} == {"C1", "C2", "C3", "C4", "C5"}
    assert len({s.part for s in defective}) == 4 and len({s.part for s in data.select("test")}) == 8
    assert {s.condition for s in opened("realiad", tree("realiad")).samples} == {"C1"}


def test_real_iad_refuses_noise_outside_of_its_noisy_lists(tmp_path):
    trees.realiad(tmp_path)
    path = tmp_path / "realiad_jsons/realiad_jsons_sv/audiojack.json"
    content = json.loads(path.read_text())
    content["train"][1]["anomaly_class"] = "HS"
    path.write_text(json.dumps(content))
    message = error_of(lambda: opened("realiad", tmp_path))
    assert f"{path}, train, entry 2: a defective training image; only the fuiad lists" in message


def test_real_iad_reads_the_one_resolution_that_is_there(tmp_path):
    trees.realiad(tmp_path)
    (tmp_path / "realiad_512" / "audiojack").mkdir(parents=True)
    assert "it has realiad_256, realiad_512" in error_of(lambda: opened("realiad", tmp_path))


def test_ad_2_takes_the_light_from_the_names_and_leaves_private_sets_alone(tree):
    from iufbench.data.readers.mvtec_ad_2 import private_images

    root = tree("mvtecad2")
    data = opened("mvtecad2", root)
    assert {s.condition for s in data.select("test")} == {"regular", "overexposed"}
    assert not [s for s in data.samples if "private" in s.image.as_posix()]
    assert {k: len(v) for k, v in private_images(root, "can").items()} == {
        "test_private": 2,
        "test_private_mixed": 2,
    }


def test_dagm_classes_come_in_the_order_of_their_numbers(tree):
    assert open_dataset("dagm", None, tree("dagm")).objects == ("Class1", "Class2", "Class10")


def test_dagm_needs_the_image_of_a_label(tmp_path):
    trees.dagm(tmp_path)
    (tmp_path / "Class1/Test/0003.PNG").unlink()
    assert "0003_label.PNG labels an image that is not in" in error_of(lambda: opened("dagm", tmp_path))


def test_dagm_needs_the_labels_that_its_list_names(tmp_path):
    trees.dagm(tmp_path)
    (tmp_path / "Class1/Test/Label/0003_label.PNG").unlink()
    assert "Labels.txt names 0003_label.png (1 in all), which is missing" in error_of(
        lambda: opened("dagm", tmp_path)
    )


def test_kolektor_opens_no_pickle_and_leaves_the_stray_copy_out(tree, monkeypatch):
    import pickle

    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    data = opened("kolektorsdd2", tree("kolektorsdd2"))
    assert not [s for s in data.samples if "copy" in s.image.name]


def test_kolektor_needs_every_mask(tmp_path):
    trees.kolektorsdd2(tmp_path)
    (tmp_path / "test/10001_GT.png").unlink()
    assert "10001_GT.png is missing: every image has a mask" in error_of(
        lambda: opened("kolektorsdd2", tmp_path)
    )


def test_seeded_splits_do_not_depend_on_where_the_data_lie(tmp_path):
    for name, make in (("mtd", trees.mtd), ("kolektorsdd", trees.kolektorsdd), ("mine", trees.flat)):
        sides = []
        for folder in ("a", "b"):
            root = tmp_path / name / folder
            make(root)
            data = open_dataset(name, None, root)
            sides.append({s.image.relative_to(root).as_posix(): s.split for s in data.samples})
        assert sides[0] == sides[1] and set(sides[0].values()) == {"train", "test"}
    # The published split itself, by its definition.
    names = [f"{k}.png" for k in range(6)]
    names.sort(key=lambda n: hashlib.sha256(f"iufbench flat split 1: gear/{n}".encode()).hexdigest())
    trained = {n for n, side in sides[0].items() if side == "train" and n.startswith("gear")}
    assert trained == {f"gear/good/{n}" for n in names[:4]}


def test_flat_folders_need_no_card(tmp_path):
    trees.flat(tmp_path)
    data = open_dataset("mine", None, tmp_path)
    assert data.counts() == {o: {"train": 4, "test_good": 2, "test_defective": 2} for o in ("gear", "plate")}
    assert "70% of the normal images train" in data.notes[0] and not data.has_masks


def test_vad_tests_unseen_defects_as_a_type_of_their_own(tree):
    data = opened("vad", tree("vad"))
    assert {s.defect for s in data.select("test")} == {"good", "bad", "bad_unseen_defects"}


# Lists


def test_meta_json_opens_several_data_sets_and_keeps_defective_training_images_apart(tmp_path):
    manifest = trees.meta_json(tmp_path)
    data = open_dataset("mine", None, tmp_path, (manifest,))
    assert data.counts() == {o: {**USUAL, "train_defective": 1} for o in ("bolt", "nut")}
    assert {s.label for s in data.training()} == {0}


def test_an_inclad_table_opens_several_roots_in_every_order(tmp_path):
    manifest = trees.inclad_csv(tmp_path)
    data = open_dataset("inclad", None, tmp_path, (manifest,))
    assert data.objects == ("03", "01") and data.counts() == {"03": USUAL, "01": USUAL}
    assert known_orders("inclad", tmp_path, (manifest,)) == {
        "easy_to_hard": ("03", "01"),
        "hard_to_easy": ("01", "03"),
    }
    assert data.samples[0].image == tmp_path / "btech/03/train/good/000.png"


def rewritten(manifest: Path, line: int, **changes: str) -> None:
    with manifest.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[line - 2].update(changes)
    with manifest.open("w", newline="") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.mark.parametrize(
    ("line", "changes", "message"),
    [
        (3, {"image_relpath": "../secret.png"}, "is not a relative path below the data root"),
        (3, {"image_relpath": "/etc/passwd"}, "is not a relative path below the data root"),
        (4, {"sample_id": "BTech/03/train/good/000.png"}, "is already used at"),
        (4, {"split": "val"}, "split is 'val', must be one of train, validation, test"),
        (5, {"image_label": "maybe"}, "image_label is 'maybe', must be one of 0, 1, normal, anomaly"),
        (2, {"mask_relpath": "03/ground_truth/ko/000_mask.png"}, "a normal image cannot have a mask"),
        (7, {"mask_relpath": ""}, "has no mask, although others have one"),
        (5, {"category_order": "x"}, "category_order is 'x', must be a whole number"),
        (5, {"category_order": "7"}, "category_order of 03 is 7, before it was 0"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, line, changes, message):
    manifest = trees.inclad_csv(tmp_path, ((("one"), ("03", "01")),))
    rewritten(manifest, line, **changes)
    found = error_of(lambda: open_dataset("inclad", None, tmp_path, (manifest,)))
    assert message in found and found.startswith(f"{manifest}, line {line}: "), found


def test_a_sample_must_be_the_same_in_every_order(tmp_path):
    manifest = trees.inclad_csv(tmp_path)
    rewritten(manifest, 16, split="test")
    assert "is another image at" in error_of(lambda: open_dataset("inclad", None, tmp_path, (manifest,)))


def test_a_source_without_a_folder_is_named(tmp_path):
    manifest = trees.inclad_csv(tmp_path)
    os.rename(tmp_path / "MVTec", tmp_path / "elsewhere")
    assert "has no folder 'MVTec'" in error_of(lambda: open_dataset("inclad", None, tmp_path, (manifest,)))
    (tmp_path / "MVTec").symlink_to(tmp_path / "btech")
    assert "a data set cannot be mixed with itself" in error_of(
        lambda: open_dataset("inclad", None, tmp_path, (manifest,))
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.update(val={}), "unknown split 'val' (allowed: train, test)"),
        (lambda c: c["train"]["nut"][1].update(anomaly=2), "train, nut, entry 2: anomaly is 2, must be 0"),
        (lambda c: c["test"]["nut"][1].update(img_path="../a.png"), "is not a relative path below"),
        (lambda c: c["test"]["nut"][2].update(c["test"]["nut"][3]), "is already listed at"),
        (lambda c: c["test"]["nut"][0].update(cls_name="bolt"), "listed under 'nut'"),
        (lambda c: c["test"]["nut"][0].update(mask_path=""), "has no mask, although others have one"),
        (lambda c: c["test"]["nut"][3].update(mask_path="a.png"), "a normal image cannot have a mask"),
        (lambda c: c["train"].update(nut={}), "must map each class to a list of entries"),
    ],
)
def test_a_bad_entry_of_a_meta_json_is_named(tmp_path, spoil, message):
    manifest = trees.meta_json(tmp_path)
    content = json.loads(manifest.read_text())
    spoil(content)
    manifest.write_text(json.dumps(content))
    found = error_of(lambda: open_dataset("mine", None, tmp_path, (manifest,)))
    assert message in found and str(manifest) in found, found


def test_a_list_of_another_kind_is_refused(tmp_path):
    trees.mvtec(tmp_path)
    (tmp_path / "list.txt").write_text("x")
    assert "must be a meta.json (.json) or an InCLAD table (.csv)" in error_of(
        lambda: open_dataset("mine", None, tmp_path, (tmp_path / "list.txt",))
    )
    (tmp_path / "list.json").write_text('{"train": \n{]')
    assert "list.json, line 2: not JSON" in error_of(
        lambda: open_dataset("mine", None, tmp_path, (tmp_path / "list.json",))
    )


@pytest.mark.parametrize("name", trees.TREES)
def test_a_tree_passes_data_check(name, tree):
    data = opened(name, tree(name))
    findings = check_dataset(data, workers=1, progress=False)
    assert [f for f in findings if f.severity == "error"] == []
    dropped = sum(counts.get("train_defective", 0) for counts in data.counts().values())
    said = [f.message for f in findings if "not trained on" in f.message]
    one = f"{dropped} defective training images are not trained on"
    assert said == ([one] if name in ("dagm", "kolektorsdd2", "vad") else [])


@pytest.mark.parametrize("make", [trees.meta_json, trees.inclad_csv])
def test_the_images_of_a_list_are_checked(make, tmp_path):
    manifest = make(tmp_path)
    options = ["--dataset", "mine", "--manifest", str(manifest), "--workers", "1"]
    words = ["data", "check", str(tmp_path), *options]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and "2 objects" in done.stdout and "0 errors" in done.stdout, done.output
    (image, *_) = sorted(p for p in tmp_path.rglob("*.png") if "train" in p.parts)
    image.write_bytes(b"cut")
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and f"{image} cannot be read as an image" in done.stdout


def test_collected_counts_warn_and_official_ones_are_errors(tmp_path):
    trees.mtd(tmp_path)
    report = check_folder(tmp_path, "mtd", workers=1, progress=False)
    found = [f for f in report.findings if "recollection" in f.message]
    assert {f.severity for f in found} == {"warning"} and len(found) == 3 and report.errors == 0
    assert "counts compared with the collected ones" in report.as_text()


def test_list_datasets_tells_what_is_here(tmp_path, monkeypatch):
    trees.mpdd(tmp_path / "mpdd")
    monkeypatch.setenv("IUFBENCH_DATA", str(tmp_path))
    done = CliRunner().invoke(main, ["list", "datasets", "--json"])
    rows = {row["dataset"]: row for row in json.loads(done.stdout)}
    assert rows["mpdd"]["here"] == str(tmp_path / "mpdd") and rows["btad"]["here"] == "no"
    assert rows["mpdd"]["images"] == 1346 and rows["mpdd"]["objects"] == 6 and rows["vad"]["masks"] == "no"
    assert (
        "CC BY-SA according to InCLAD" in rows["btad"]["licence"] and rows["realiad"]["images"] == "unknown"
    )


def renamed(make: Callable[[Path], None], old: str, new: str) -> Callable[[Path], None]:
    """A tree whose folders ``<object>/<old>`` have another name."""

    def changed(root: Path) -> None:
        make(root)
        for folder in list(root.glob(f"*/{old}")):
            folder.rename(folder.with_name(new))

    return changed


def added(make: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    """A tree with another image."""

    def more(root: Path) -> None:
        make(root)
        trees.put(root / name)

    return more


def one_object(root: Path) -> None:
    for name in ("good", "bad"):
        trees.put(root / name / "0.png")


MISREAD = {
    "flat, Normal": (renamed(trees.flat, "good", "Normal"), "accept it with --good-name Normal"),
    "flat, normal beside good": (added(trees.flat, "gear/normal/9.png"), "accept it with --good-name normal"),
    "flat, masks": (added(trees.flat, "gear/masks/9.png"), "gear/masks looks like a folder of masks"),
    "flat, an image outside": (added(trees.flat, "gear/9.png"), "outside of the good and defect folders"),
    "flat, documents": (added(trees.flat, "docs/a/9.png"), "docs has no normal images in a folder good"),
    "masks": (renamed(trees.mvtec, "ground_truth", "Ground Truth"), "looks like a folder of masks"),
    "one object": (one_object, "looks like a single object"),
}


@pytest.mark.parametrize("row", MISREAD)
def test_folders_that_would_be_misread_are_refused(tmp_path, row):
    make, words = MISREAD[row]
    make(tmp_path)
    assert words in error_of(lambda: open_dataset("mine", None, tmp_path))


def test_other_test_folders_of_mvtec_ad_2_are_refused(tmp_path):
    added(trees.mvtecad2, "can/test_public/normal/9.png")(tmp_path)
    words = error_of(lambda: open_dataset("mvtecad2", ["can"], tmp_path))
    assert "test_public/normal: test_public has the folders good, bad and ground_truth only" in words


def test_normal_folders_are_accepted_in_every_layout_that_refuses_them(tmp_path):
    renamed(trees.flat, "good", "Normal")(tmp_path / "flat")
    trees.flat(tmp_path / "plain")
    found = open_dataset("mine", None, tmp_path / "flat", good=("Normal",))
    assert found.counts() == open_dataset("mine", None, tmp_path / "plain").counts()
    trees.mvtec3d(tmp_path / "3d")
    (tmp_path / "3d/bagel/test/good").rename(tmp_path / "3d/bagel/test/OK")
    data = open_dataset("mvtec3d", ["bagel"], tmp_path / "3d", good=("OK",))
    assert data.counts() == {"bagel": COUNTS["mvtec3d"]}


def test_flat_folders_have_masks_and_litter_as_other_layouts(tmp_path):
    """Masks of some objects, several files per mask; what is skipped or not used is noted."""
    trees.flat(tmp_path)
    for k in range(2):
        for part in range(2):
            trees.put_mask(tmp_path / f"gear/ground_truth/bad/{k}/{part}.bmp")
    trees.put_mask(tmp_path / "gear/ground_truth/scratch/0_mask.png")
    for litter in ("@eaDir", "docs", "gear/bad/@eaDir"):
        trees.put(tmp_path / litter / "0.png")
    data = open_dataset("mine", ("plate", "gear"), tmp_path)
    assert [data.is_masked(name) for name in data.objects] == [False, True]
    assert {len(s.mask_files) for s in data.select("test", ("gear",)) if s.label} == {2}
    assert data.notes[1:] == (
        "2 files and folders that are not images, skipped: such as @eaDir",
        "not used: gear/ground_truth/scratch/0_mask.png (masks of no defective image, folders outside of the "
        "layout)",
        "no ground_truth folder, so image metrics only: plate",
    )


def test_masks_and_folders_that_are_not_used_are_noted(tmp_path):
    for k, name in enumerate(
        ("nut/ground_truth/dent/7_mask.png", "nut/ground_truth/good/0.png", "nut/val/0.png")
    ):
        root = tmp_path / str(k)
        added(trees.mvtec, name)(root)
        (note,) = open_dataset("mine", None, root).notes
        assert note.startswith(f"not used: {name.removesuffix('/0.png') if 'val' in name else name} (")
