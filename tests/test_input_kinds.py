"""Unusual data through the command line: read as intended, reported as doubtful, or rejected."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image

from iufbench.cards.protocols import find_protocol, resolve_protocol
from iufbench.cli.main import main
from iufbench.data.datasets import open_dataset
from iufbench.data.download.extract import unpack
from iufbench.data.readers.reading import choose_objects, is_normal
from iufbench.data.synthetic import writer
from iufbench.engine.stopping import terminated_as_interrupted
from iufbench.models.backbone import BackboneSpec, FrozenBackbone
from iufbench.models.likeness import require_no_leftovers, shapes_of
from iufbench.reporting.store import find_runs
from iufbench.support.errors import InputError
from iufbench.support.files import write_text
from iufbench.support.progress import Progress
from iufbench.sweeps.grid import read_seeds

SIZE = (24, 32)  # height and width of the images


def picture(name: str, number: int, dented: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An image [24, 32, 3] and its mask; all are different, with a visible defect."""
    rng = np.random.default_rng([len(name), ord(name[0]), number, dented])
    pixels = np.clip(90 + 20 * np.arange(3) + rng.normal(0, 6, (*SIZE, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros(SIZE, dtype=bool)
    if dented:
        y, x = rng.integers(3, 12), rng.integers(3, 20)
        mask[y : y + 6, x : x + 8] = True
        pixels[mask] = 255 - pixels[mask]
    return pixels, mask


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)


def make(root: Path, *names: str, images=save, masks=None) -> Path:
    """A data set in MVTec layout; ``images`` and ``masks`` are the writers."""
    for name in names:
        for k in range(3):
            images(root / name / f"train/good/{k}.png", picture(name, k)[0])
            images(root / name / f"test/good/{k}.png", picture(name, 10 + k)[0])
            dented, mask = picture(name, 20 + k, dented=True)
            images(root / name / f"test/dent/{k}.png", dented)
            place = root / name / f"ground_truth/dent/{k}_mask.png"
            (masks or (lambda p, m: save(p, m.astype(np.uint8) * 255)))(place, mask)
    return root


def invoke(*arguments, **environment) -> Result:
    done = CliRunner(env=environment).invoke(main, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def run(root: Path, results: Path, *more, protocol="parts_1_1", **environment) -> Result:
    return invoke(
        "run", "--protocol", protocol, "--strategy", "padim", "--data-root", root, "--results", results,
        "--preset", "quick", "--device", "cpu", "-q", "--set", "image_size=32", "--no-cache", *more,
        **environment,
    )  # fmt: skip


def only_run(results: Path):
    (found,), damaged = find_runs(results)
    assert not damaged
    return found


@pytest.fixture(scope="module", autouse=True)
def without_figures():
    """Drawing takes most of the time of such a small run, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iufbench.reporting.figures.build.write_run_figures", lambda run: [])
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A folder with a valid data set (``parts``) and the results of a run on it (``results``)."""
    folder = tmp_path_factory.mktemp("plain")
    assert run(make(folder / "parts", "bolt", "nut"), folder / "results").exit_code == 0
    return folder


def turned(path: Path, pixels: np.ndarray) -> None:
    """Stored rotated, with the EXIF orientation that corrects it."""
    orientation, turns = (3, 2) if path.stem == "0" else (6, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, np.rot90(pixels, turns).copy(), exif=exif)


def white_first(path: Path, mask: np.ndarray) -> None:
    image = Image.frombytes("P", mask.shape[::-1], (~mask).astype(np.uint8).tobytes())
    image.putpalette([255, 255, 255, 0, 0, 0])
    save(path, image)


def in_alpha(path: Path, mask: np.ndarray) -> None:
    save(path, np.dstack([np.full((*SIZE, 3), 255), mask * 255]).astype(np.uint8))


def one_file_per_region(path: Path, mask: np.ndarray) -> None:
    rows = np.arange(SIZE[0])[:, None]
    split = int(np.flatnonzero(mask.any(axis=1)).mean())
    for k, part in enumerate((mask & (rows <= split), mask & (rows > split))):
        save(
            path.parent / path.stem.removesuffix("_mask") / f"{k:03d}.png", part.astype(np.uint8) * (255 - k)
        )


@pytest.mark.parametrize("masks", [white_first, in_alpha, one_file_per_region])
def test_the_same_data_in_another_form_gives_the_same_numbers(plain, tmp_path, masks):
    """Images rotated by EXIF and unusual masks: every number equals that of the plain data, bit by bit."""
    root = make(tmp_path / "parts", "bolt", "nut", images=turned, masks=masks)
    for litter in ("@eaDir/x.png", "bolt/test/dent/@eaDir/0.png", "nut/train/lost+found/a.png"):
        save(root / litter, picture("x", 0)[0])
    (root / "nut/test/dent/0.json").write_text("{}")
    done = run(root, tmp_path / "results", "--accept-masks")
    assert done.exit_code == 0 and done.stderr == "", done.output
    found, expected = only_run(tmp_path / "results"), only_run(plain / "results")
    assert found.metrics.equals(expected.metrics)
    notes = " ".join(found.record.dataset.notes)
    assert (
        "EXIF orientation, which is applied" in notes and "4 files and folders that are not images" in notes
    )


def test_inverted_masks_are_doubted_by_run_and_check_alike(tmp_path):
    root = make(tmp_path / "parts", "bolt", masks=lambda p, m: save(p, (~m).astype(np.uint8) * 255))
    make(root, "nut")
    done = run(root, tmp_path / "r")
    words = "masks of bolt: 3 of 3 masks, such as"
    assert done.exit_code == 0 and done.stderr.count("warning:") == 1 and words in done.stderr
    (warning,) = only_run(tmp_path / "r").record.warnings
    assert warning.startswith(words) and "inverted" in warning and f"warning: {warning}" in done.stdout
    checked = invoke("data", "check", root, "--dataset", "parts", "--workers", "1")
    assert checked.exit_code == 0 and warning.partition(": ")[2] in checked.stdout
    assert "1 warnings" in checked.stdout
    accepted = run(root, tmp_path / "r2", "--accept-masks")
    assert accepted.stderr == "" and only_run(tmp_path / "r2").record.warnings == []
    again = invoke("data", "check", root, "--dataset", "parts", "--workers", "1", "--accept-masks")
    assert "0 warnings" in again.stdout


def test_an_object_without_masks_has_image_metrics(plain, tmp_path):
    root = Path(shutil.copytree(plain / "parts", tmp_path / "parts"))
    shutil.rmtree(root / "nut/ground_truth")
    assert run(root, tmp_path / "r").exit_code == 0
    metrics, whole = only_run(tmp_path / "r").metrics, only_run(plain / "results").metrics
    kept = whole[(whole["level"] == "image") | (whole["object"] == "bolt")].reset_index(drop=True)
    assert metrics.equals(kept)


def test_what_cannot_have_a_value_is_reported_before_training_and_wherever_numbers_are_shown(tmp_path):
    root, results = make(tmp_path / "parts", "bolt", "nut", "pin"), tmp_path / "r"
    shutil.rmtree(root / "nut/test/good")
    for part in ("test/dent", "ground_truth"):
        shutil.rmtree(root / "pin" / part)
    lines = [
        "nut: no good test images: image AUROC is undefined; image ACC and FM stay empty",
        "pin: no defective test images: image AUROC is undefined; image ACC and FM stay empty",
        "pin: no defective test images: pixel AUROC is undefined; pixel ACC and FM stay empty",
    ]
    checked = invoke("data", "check", root, "--dataset", "parts", "--workers", "1").stdout
    planned = run(root, results, "--dry-run", protocol="parts_1_1x2").stdout
    done = run(root, results, protocol="parts_1_1x2")
    assert done.exit_code == 0, done.output
    found = only_run(results)
    assert found.record.warnings == lines and done.stderr == "".join(f"warning: {line}\n" for line in lines)
    assert all(f"warning: {line}" in text for line in lines for text in (checked, planned, done.stdout))
    assert "; ".join(lines) in invoke("list", "runs", "--results", results).stdout
    invoke("tables", "--results", results, "--out", tmp_path / "tables")
    table = (tmp_path / "tables/results_parts_other_image.md").read_text()
    (row,) = (line for line in table.splitlines() if "PaDiM" in line and line.startswith("|"))
    assert not re.search(r"\d\.\d", row) and all(line in table for line in lines)
    explained = invoke("explain", "acc", found.path).stdout
    assert "image: undefined (AUROC), undefined (AP)" in explained and all(
        line in explained for line in lines
    )


@pytest.mark.parametrize(
    "name",
    [
        *("normal", "Good", "OK", "ok ", "good2", "Non-Defective", "test_normal", "i.O.", "正常", "NORMAL_"),
        *("no_anomaly", "non-anomalous", "undamaged", "Flawless parts", "nominal", "accepted", "error-free"),
    ],
)
def test_a_folder_that_looks_normal_is_asked_about(plain, tmp_path, name):
    root = Path(shutil.copytree(plain / "parts", tmp_path / "parts"))
    (root / "nut/test/good").rename(root / "nut/test" / name)
    given = ("data", "check", root, "--dataset", "parts", "--workers", "1")
    refused = invoke(*given)
    assert refused.exit_code == 1 and f"nut/test/{name} looks like" in refused.stdout
    assert "accept it with --good-name" in refused.stdout
    done = invoke(*given, "--good-name", name, "--json")
    assert json.loads(done.stdout)["counts"]["nut"] == {"train": 3, "test_good": 3, "test_defective": 3}


@pytest.mark.parametrize(
    "name", ["not_ok", "no good", "n.i.O.", "bad", "good_and_scratch", "anomaly", "error"]
)
def test_a_folder_of_defects_is_not_asked_about(name):
    assert not is_normal(Path("nut/test") / name)


def test_a_good_name_is_kept_for_later_commands(plain, tmp_path):
    root = Path(shutil.copytree(plain / "parts", tmp_path / "parts"))
    for split in ("train", "test"):
        (root / "nut" / split / "good").rename(root / "nut" / split / "normal")
    assert run(root, tmp_path / "r", "--good-name", "normal").exit_code == 0
    found = only_run(tmp_path / "r")
    assert found.metrics.equals(only_run(plain / "results").metrics)
    moved = root.rename(tmp_path / "moved")
    assert invoke("evaluate", found.path, "-q").exit_code == 2
    done = invoke("evaluate", found.path, "-q", "--data-root", moved)
    assert done.exit_code == 0 and "no difference" in done.stdout, done.output


CARD = "name: parts\ntitle: My parts\nlayout: mvtec\nobjects: [nut, bolt]\n"


@pytest.mark.parametrize("place", ["working folder", "variable", "option"])
def test_a_card_of_ones_own_gives_the_order(plain, tmp_path, monkeypatch, place):
    folder = tmp_path / ("benchmarks/datasets" if place == "working folder" else "cards")
    folder.mkdir(parents=True)
    (folder / "parts.yaml").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    more = ("--card", folder / "parts.yaml") if place == "option" else ()
    environment = {"IUFBENCH_CARDS": str(folder)} if place == "variable" else {}
    done = run(plain / "parts", tmp_path / "r", *more, "--dry-run", **environment)
    assert done.exit_code == 0 and done.stdout.index(" nut ") < done.stdout.index(" bolt "), done.output
    checked = invoke(
        "data", "check", plain / "parts", "--dataset", "parts", "--workers", "1", *more, **environment
    )
    assert (
        "no counts on the card), 0 errors, 0 warnings" in checked.stdout and "official" not in checked.stdout
    )
    if place != "option":
        assert "My parts" in invoke("list", "datasets", **environment).stdout


def test_a_card_that_changes_the_pixels_gives_another_run(plain, tmp_path):
    results = Path(shutil.copytree(plain / "results", tmp_path / "results"))
    (tmp_path / "parts.yaml").write_text(CARD.replace("[nut, bolt]", "[bolt, nut]") + "exif: ignore\n")
    more = ("--card", tmp_path / "parts.yaml", "--order", "bolt,nut")
    done = run(plain / "parts", results, "--card", tmp_path / "parts.yaml")
    assert done.exit_code == 2 and "on different data (EXIF orientations were applied)" in done.stderr
    assert run(plain / "parts", results, *more).exit_code == 0
    tables = invoke("tables", "--results", results, "--out", tmp_path / "tables")
    assert tables.exit_code == 0 and "(EXIF ignored): " in tables.stderr
    strict = invoke("tables", "--results", results, "--out", tmp_path / "tables", "--strict")
    assert strict.exit_code == 1 and "are in separate tables" in strict.stderr
    former = next((results / "runs/parts/parts_1_1+bolt-nut").rglob("seed0"))
    (tmp_path / "parts.yaml").write_text(CARD)
    evaluated = invoke("evaluate", former, "-q")
    assert evaluated.exit_code == 1 and "EXIF orientations ignored, which the card" in evaluated.stderr


def test_counts_of_a_card_of_ones_own_are_those_of_the_card(plain, tmp_path):
    (tmp_path / "parts.yaml").write_text(CARD + "counts: {nut: {train: 4}}\n")
    given = ("--dataset", "parts", "--workers", "1", "--card", tmp_path / "parts.yaml")
    planned = run(plain / "parts", tmp_path / "r", "--card", tmp_path / "parts.yaml", "--dry-run")
    assert "warning: other image counts than on the data set's card: nut 3 of 4 train" in planned.stdout
    done = invoke("data", "check", plain / "parts", *given)
    assert done.exit_code == 1 and "error: nut: 3 train images, on the card 4" in done.stdout
    assert "counts compared with those of the card), 1 errors, 0 warnings" in done.stdout
    part = invoke("data", "check", plain / "parts", *given, "--objects", "nut")
    assert part.exit_code == 0 and "1 of 2 objects" in part.stdout and "warning: nut: 3 train" in part.stdout


CARD_MISTAKES = {
    "another name": (CARD.replace("name: parts", "name: other"), "is for data set 'other', not 'parts'"),
    "no such layout": (CARD.replace("mvtec", "coco"), "layout"),
    "counts of another shape": (CARD + "counts: {nut: 5}\n", "counts.nut must be whole numbers"),
    "unknown key": (CARD + "exfi: ignore\n", "unknown key 'exfi'; did you mean 'exif'"),
    "counts of no object": (CARD + "counts: {nuts: {train: 3}}\n", "counts.nuts: 'nuts' is none of the"),
    "counts of no kind": (CARD + "counts: {nut: {trian: 3}}\n", "unknown key 'counts.nut.trian' (allowed:"),
    "object twice": (CARD.replace("bolt", "nut"), "objects names 'nut' twice"),
    "objects alike": (CARD.replace("bolt", "Nut"), "'nut' and 'Nut' differ only in case"),
    "object with a comma": (CARD.replace("bolt", "'a,b'"), "'a,b' cannot name an object: rename it; the"),
    "order of no object": (CARD + "orders: {mine: [nut, pin]}\n", "orders.mine: 'pin' is none of the card's"),
    "order that is text": (CARD + "orders: {mine: nut}\n", "orders.mine must be a list"),
    "kind that is text": (CARD + "kinds: {small: dent}\n", "kinds.small must be a list"),
    "unknown option": (CARD + "options: {root: /etc}\n", "has no option 'root' (allowed: defective_"),
    "option of another type": (CARD + "options: {defective_training: 3}\n", "must be true or false, not 3"),
}  # fmt: skip


@pytest.mark.parametrize("row", CARD_MISTAKES)
def test_cards_that_are_wrong(plain, tmp_path, row):
    content, words = CARD_MISTAKES[row]
    (tmp_path / "parts.yaml").write_text(content)
    done = run(plain / "parts", tmp_path / "r", "--card", tmp_path / "parts.yaml")
    assert done.exit_code == 2 and words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "variable", "words"),
    [
        (
            "cards/mine.yaml",
            "cards",
            "the card is for data set 'parts': rename the file to parts.yaml",
        ),
        ("cards/parts.yaml", "cards/parts.yaml", "is not a folder: name folders of cards"),
        ("cards/parts.yaml", "card", "is not a folder: name folders of cards"),
        ("cards/parts.yml", "cards", ""),
    ],
)
def test_a_card_that_is_not_found_is_reported(plain, tmp_path, file, variable, words):
    """Without it, objects would be in the order of their names."""
    write_text(tmp_path / file, CARD)
    environment = {"IUFBENCH_CARDS": str(tmp_path / variable)}
    done = run(plain / "parts", tmp_path / "r", "--dry-run", **environment)
    assert done.exit_code == (2 if words else 0) and words in done.stderr
    assert words or done.stdout.index(" nut ") < done.stdout.index(" bolt ")


def test_a_card_cannot_take_the_place_of_one_that_ships(plain, tmp_path):
    (tmp_path / "visa.yaml").write_text(CARD.replace("name: parts", "name: visa"))
    done = run(plain / "parts", tmp_path / "r", "--card", tmp_path / "visa.yaml", protocol="visa_1_1")
    assert done.exit_code == 2 and "'visa' is the name of a card that comes with iufbench" in done.stderr
    (tmp_path / "Visa.yaml").write_text(CARD.replace("name: parts", "name: Visa"))
    done = run(plain / "parts", tmp_path / "r", "--card", tmp_path / "Visa.yaml", protocol="Visa_1_1")
    assert done.exit_code == 2 and "'visa' is the name of a card that comes with iufbench" in done.stderr


@pytest.mark.parametrize(("kind", "words"), [("link", "no such file"), ("pipe", "is not a regular file")])
def test_cards_that_are_no_files_stop_nothing_else(plain, tmp_path, kind, words):
    path = tmp_path / "loop.yaml"
    path.symlink_to(path) if kind == "link" else os.mkfifo(path)
    assert run(plain / "parts", tmp_path / "r", "--dry-run", IUFBENCH_CARDS=str(tmp_path)).exit_code == 0
    listed = invoke("list", "datasets", IUFBENCH_CARDS=str(tmp_path))
    assert listed.exit_code == 2 and f"loop.yaml: {words}" in listed.stderr


def test_a_part_of_a_data_set_is_enough_for_its_objects(tmp_path):
    root = make(tmp_path / "mvtec", "bottle", "screw")
    done = run(root, tmp_path / "r", "--order", "screw,bottle", protocol="mvtec_1_1")
    assert done.exit_code == 0, done.output
    record = only_run(tmp_path / "r").record
    assert record.dataset.coverage == "2 of 15 objects" and record.protocol.objects == ("screw", "bottle")
    assert "other image counts than on the data set's card: screw 3 of 320 train" in record.warnings[0]
    given = ("data", "check", root, "--dataset", "mvtec", "--workers", "1")
    assert invoke(*given).exit_code == 1
    part = invoke(*given, "--objects", "bottle,screw")
    assert part.exit_code == 0 and "2 of 15 objects" in part.stdout and "3 of 209" in part.stdout


def test_order_reads_the_named_objects_and_nothing_else(plain, tmp_path):
    root = Path(shutil.copytree(plain / "parts", tmp_path / "parts"))
    (root / "docs").mkdir()
    refused = run(root, tmp_path / "r", "--dry-run")
    assert (
        refused.exit_code == 2 and "docs/train is missing" in refused.stderr and "--order" in refused.stderr
    )
    assert run(root, tmp_path / "r", "--dry-run", "--order", "nut,bolt").exit_code == 0


def test_a_new_object_that_comes_first_is_reported(plain, tmp_path):
    root = make(Path(shutil.copytree(plain / "parts", tmp_path / "parts")), "anchor")
    results = Path(shutil.copytree(plain / "results", tmp_path / "results"))
    refused = run(root, results)
    assert refused.exit_code == 2 and "--order bolt,nut keeps that of the run" in refused.stderr
    assert "--order bolt,nut,anchor" in refused.stderr
    done = run(root, results, protocol="parts_1_1x2")
    assert done.exit_code == 0 and "to keep the former: --order bolt,nut,anchor" in done.stderr
    kept = run(root, results, "--order", "bolt,nut,anchor", protocol="parts_1_1x2")
    assert kept.exit_code == 0 and kept.stderr == ""
    former = next((results / "runs/parts/parts_1_1").rglob("seed0"))
    evaluated = invoke("evaluate", former, "-q", "--data-root", root)
    assert evaluated.exit_code == 0 and "no difference" in evaluated.stdout, evaluated.output


def test_a_run_with_a_stream_is_rebuilt_from_its_record(plain, tmp_path):
    assert run(plain / "parts", tmp_path / "r", protocol="parts_1_1@recurring").exit_code == 0
    found = only_run(tmp_path / "r").path
    assert "no difference" in invoke("evaluate", found, "-q").stdout
    assert invoke("predict", found, plain / "parts/nut/test/dent/0.png", "-q").exit_code == 0


def test_a_tilde_that_the_shell_left_alone_is_the_home_folder(plain, tmp_path):
    done = invoke(
        "run", "--protocol", "parts_1_1", "--strategy", "padim", "--data-root=~/parts", "--preset", "quick",
        "--dry-run", HOME=str(plain),
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_a_large_image_is_read_when_it_is_allowed(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("iufbench.data.datasets.MAX_PIXELS", 1000)
    root = Path(shutil.copytree(plain / "parts", tmp_path / "parts"))
    save(root / "nut/train/good/0.png", np.zeros((40, 50, 3), np.uint8))
    refused = run(root, tmp_path / "r")
    assert refused.exit_code == 2 and "--max-pixels 2000" in refused.stderr
    assert run(root, tmp_path / "r", "--max-pixels", 2000).exit_code == 0
    assert only_run(tmp_path / "r").record.request["max_pixels"] == 2000


def test_the_depth_of_16_bit_images_is_kept(tmp_path):
    root = make(
        tmp_path / "parts", "bolt", "nut", images=lambda p, a: save(p, a[..., 0].astype(np.uint16) * 16)
    )
    assert run(root, tmp_path / "r").exit_code == 0
    data = only_run(tmp_path / "r").record.dataset
    assert data.decoding["bits"] == 12 and "12 bits, so 4095 becomes 255" in data.notes[0]


def test_an_object_added_later_does_not_change_the_depth(tmp_path):
    """The bank holds features of images that were scaled by 12 bits."""

    def wide(factor: int):
        return lambda p, a: save(p, a[..., 0].astype(np.uint16) * factor)

    root = make(tmp_path / "parts", "bolt", "nut", images=wide(16))
    assert run(root, tmp_path / "r").exit_code == 0
    parent = only_run(tmp_path / "r").path
    make(root, "pin", images=wide(3))
    assert invoke("extend", parent, "--object", "pin", "-q", "--results", tmp_path / "r2").exit_code == 0
    extended = only_run(tmp_path / "r2")
    assert extended.record.dataset.decoding["bits"] == 12
    assert invoke("verify", extended.path, "-q").exit_code == 0
    make(root, "rim", images=wide(200))
    before = sorted(tmp_path.rglob("*"))
    refused = invoke("extend", parent, "--object", "rim", "-q", "--results", tmp_path / "r3")
    assert refused.exit_code == 2 and "more than the 12 bits of its data set hold" in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before


# Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "mean",
        "mean_",
        "NA",
        "nan",
        "a,b",
        "CON",
        "com1.x",
        "COM\u00b9",
        " nut",
        "nut.",
        b"f\xfc\xdf",
        "nut\u200f",
        "\u202etun",
        "nut\u3164",
        "nut\ufe00",
        "a:b",
    ],
)
def test_names_that_something_could_not_hold_are_refused_with_the_rule(plain, tmp_path, name):
    root = Path(shutil.copytree(plain / "parts", tmp_path / "parts"))
    os.rename(os.fsencode(root / "nut"), os.path.join(os.fsencode(root), os.fsencode(name)))
    done = run(root, tmp_path / "r")
    assert done.exit_code == 2 and "cannot name an object: rename it; the rule: " in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("bolt", "Bolt"),
        ("gr\u00f6\u00dfe", "gro\u0308\u00dfe"),
        ("stra\u00dfe", "STRASSE"),
        ("nut", "nut\u200d"),
    ],
)
def test_names_that_some_systems_take_for_one_are_refused(names):
    with pytest.raises(InputError, match="differ only in case, in the composition of letters, or in"):
        choose_objects(names, None, Path("parts"))
    assert choose_objects(names, names[:1], Path("parts")) == names[:1]


def test_an_order_that_cannot_name_an_object_is_rejected_with_the_rule(plain, tmp_path):
    root = make(Path(shutil.copytree(plain / "parts", tmp_path / "parts")), "a,b")
    done = run(root, tmp_path / "r", "--dry-run", "--order", "nut,a,b")
    assert done.exit_code == 2 and "'a,b' cannot name an object: rename it; the rule: no ','" in done.stderr


def test_names_that_are_distinguished(tmp_path):
    names = sorted(("01", "02", "1e5", "True", "a.b", "a.c", "größe x", "零件"))
    done = run(make(tmp_path / "parts", *names), tmp_path / "r", protocol="parts_4_4")
    assert done.exit_code == 0 and all(name in done.stdout for name in names)
    found = only_run(tmp_path / "r")
    assert list(found.objects) == names
    table = pd.read_csv(found.path / "metrics.csv", dtype={"object": str})
    assert sorted(table["object"].unique()) == names


@pytest.mark.parametrize("name", ["3cad", "零件", "Übung", "a.b-c"])
def test_data_sets_of_any_script(plain, name):
    assert find_protocol(f"{name}_1_1") == (name, None)
    protocol = resolve_protocol(f"{name}_1_1", open_dataset(name, None, plain / "parts").objects)
    assert (protocol.dataset, protocol.id, protocol.objects) == (name, f"{name}_1_1", ("bolt", "nut"))


@pytest.mark.parametrize("name", ["my parts", "-parts", "_parts", "a/b", "CON"])
def test_data_set_names_that_are_refused_with_the_rule(plain, tmp_path, name):
    done = run(plain / "parts", tmp_path / "r", "--dry-run", f"--protocol={name}_1_1")
    assert done.exit_code == 2 and ("the name of a data set is" in done.stderr or "the rule:" in done.stderr)
    checked = invoke("data", "check", plain / "parts", f"--dataset={name}", "--workers", "1")
    assert checked.exit_code == 2 and "cannot name a data set; the rule: " in checked.stderr


def test_orders_of_names_with_dashes_are_distinguished(tmp_path):
    root = make(tmp_path / "parts", "a-b", "c", "a", "b-c")
    found = open_dataset("parts", None, root).objects
    ids = {resolve_protocol("parts_1_1", found, order).id for order in (("a-b", "c"), ("a", "b-c"))}
    assert len(ids) == 2


# The surroundings ----------------------------------------------------------------------------------------


def test_the_package_imports_where_there_is_no_unix():
    code = (
        "import importlib, os, pkgutil, signal, sys\n"
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):\n    sys.modules[name] = None\n"
        "for name in ('getuid', 'geteuid', 'sched_getaffinity', 'sysconf', 'killpg'):\n"
        "    delattr(os, name)\n"
        "for name in ('SIGHUP', 'SIGALRM', 'SIGKILL', 'setitimer', 'pthread_sigmask'):\n"
        "    delattr(signal, name)\n"
        "import iufbench\n"
        "for module in pkgutil.walk_packages(iufbench.__path__, 'iufbench.'):\n"
        "    if not any(part in module.name for part in ('__main__', 'sweeps', 'bench.', 'synthetic')):\n"
        "        importlib.import_module(module.name)\n"
        "from iufbench.support.provenance import peak_memory_mb\n"
        "print(peak_memory_mb())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "None\n", done.stderr


def test_weights_of_another_network_are_reported(tmp_path):
    torch.save(timm.create_model("resnet34", pretrained=False).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"has 80 tensors that resnet18 lacks .* look like weights of resnet34"
    ):
        FrozenBackbone(BackboneSpec("resnet18", weights=str(tmp_path / "w.pth")))
    with pytest.raises(InputError, match="look like weights of resnet34"):
        FrozenBackbone(BackboneSpec("resnet50", weights=str(tmp_path / "w.pth")))
    FrozenBackbone(BackboneSpec("resnet34", weights=str(tmp_path / "w.pth"), layers=(1, 2)))
    torch.save(timm.create_model("efficientnet_b1", pretrained=False).state_dict(), tmp_path / "e.pth")
    with pytest.raises(InputError, match="look like weights of efficientnet_b1"):
        FrozenBackbone(BackboneSpec("resnet18", weights=str(tmp_path / "e.pth")))


def test_weights_that_fit_the_stages_in_use_only_are_told():
    given = {key: torch.empty(shape, device="meta") for key, shape in shapes_of("resnet50").items()}
    first = [key for key in given if key.startswith(("conv1.", "bn1.", "layer1.", "layer2."))]
    with pytest.raises(InputError, match=r"lacks 255 tensors of resnet101 .* look like weights of resnet50"):
        require_no_leftovers(given, first, "resnet101", "w.pth")
    require_no_leftovers(given, first, "resnet50", "w.pth")
    stages = {key: tensor for key, tensor in given.items() if not key.startswith(("layer4.", "fc."))}
    require_no_leftovers(stages, first, "resnet50", "w.pth")  # a whole stage may be missing


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_a_closed_terminal_interrupts_unless_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup themselves
    try:
        with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
            os.kill(os.getpid(), signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        with terminated_as_interrupted():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_every_command_that_is_ended_cleans_up(tmp_path, monkeypatch, name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    monkeypatch.setattr(writer, "_write_images", lambda *arguments: os.kill(os.getpid(), number))
    try:
        done = CliRunner().invoke(main, ["data", "make", str(tmp_path / "parts"), "--workers", "1"])
    finally:
        signal.signal(number, before)
    assert done.exit_code == 130 and done.stderr == "\ninterrupted\n"
    assert not list(tmp_path.iterdir())


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom iufbench.support import files\n"
        "os.replace = lambda *names: os._exit(9)\n"
        "with files.work_folder(Path(sys.argv[1]) / 'folder') as made:\n"
        "    (made / 'x').touch()\n    files.write_text(Path(sys.argv[1]) / 'a', 'x')\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    left, folder = sorted(tmp_path.iterdir(), key=Path.is_dir)
    assert (folder / "x").exists()
    alive = left.with_name(left.name.replace(left.name.split(".")[-2], str(os.getppid())))
    alive.write_text("y")
    write_text(tmp_path / "b", "z")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive.name, "b"])


@pytest.mark.parametrize("seeds", ["0-299999999", "0-" + "9" * 5000, "1" * 30])
def test_a_grid_of_too_many_seeds_is_refused_at_once(seeds):
    with pytest.raises(InputError, match=r"limit is 100,000 runs|must be a number"):
        read_seeds(seeds)


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "make", "x", "--train"],
        ["data", "make", "x", "--workers"],
        ["data", "check", ".", "--dataset", "mine", "--workers"],
        ["sweep", "paper", "--jobs"],
        ["bench", "--threads"],
        ["bench", "--batch"],
    ],
)
def test_a_number_beyond_any_machine_is_refused_at_once(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [*arguments, "9" * 30])
    assert done.exit_code == 2 and done.stdout == "" and not list(tmp_path.iterdir()), done.output
    assert "is not in the range" in done.stderr or "the limit is 100,000" in done.stderr


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_of_two_gigabytes_is_not_read(tmp_path, kind):
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = kind, 2**31
    good = tarfile.TarInfo("a.txt")
    archive = tmp_path / "a.tar"
    with io.BytesIO() as packed:
        for header in (good, entry):
            packed.write(header.tobuf(tarfile.GNU_FORMAT))
        archive.write_bytes(packed.getvalue())
    with pytest.raises(InputError, match="a name of 2,147,483,648 bytes"):
        unpack(archive, tmp_path / "out", Progress(-1))
