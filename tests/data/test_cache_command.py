"""iufbench data cache: list, verify and clear."""

from __future__ import annotations

import json
import os
import stat
from functools import partial

import numpy as np
import pytest
from caching import inputs
from click.testing import CliRunner
from notes import Notes
from PIL import Image

from iufbench.cards.streams import find_stream
from iufbench.cli.main import main
from iufbench.data.changes import drifted
from iufbench.data.datasets import open_dataset, synthetic_root
from iufbench.data.synthetic import writer
from iufbench.support.errors import InputError, RunError
from iufbench.support.folders import cache_folder
from iufbench.support.locks import NAME as LOCK
from iufbench.support.locks import locked


def invoke(*arguments):
    return CliRunner().invoke(main, ["data", "cache", *arguments])


@pytest.fixture
def folder(data, tmp_path, monkeypatch):
    """A cache folder with images, guides and features of the tiny VisA."""
    monkeypatch.setenv("IUFBENCH_CACHE", str(tmp_path))
    inputs().use_cache(tmp_path, open_dataset("visa", None, data), Notes())
    return tmp_path


def test_an_empty_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("IUFBENCH_CACHE", str(tmp_path / "none"))
    assert "0 entries" in invoke().stdout
    assert "no corrupted" in invoke("--verify").stdout
    assert "0 bytes freed" in invoke("--clear").stdout
    assert json.loads(invoke("--json").stdout)["entries"] == []
    assert not (tmp_path / "none").exists()


def test_info_names_every_entry_with_its_size(folder, data):
    text = invoke("--info").stdout
    assert "3 entries" in text and "visa-synthetic-32" in text and str(folder) in text
    found = json.loads(invoke("--info", "--json").stdout)
    assert found["folder"] == str(folder)
    assert [(e["kind"], e["rows"], e["state"]) for e in found["entries"]] == [
        ("features", 39, "complete"), ("guides", 39, "complete"), ("images", 39, "complete"),
    ]  # fmt: skip
    assert {e["root"] for e in found["entries"]} == {str(data.resolve())}
    on_disk = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != LOCK)
    assert found["bytes"] == sum(e["bytes"] for e in found["entries"]) == on_disk


def test_verify_finds_corruption(folder):
    done = invoke("--verify")
    assert done.exit_code == 0 and done.stdout == "no corrupted entries\n"
    (path,) = folder.glob("images/*/*.npy")
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    done = invoke("--verify")
    assert done.exit_code == 1
    assert str(path.parent) in done.stdout and "1 corrupted entry" in done.stdout


def test_clear_removes_entries_and_nothing_else(folder):
    mine = [folder / "synthetic" / "marker", folder / "images" / "holiday" / "beach.jpg"]
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    done = invoke("--clear")
    assert done.exit_code == 0 and "freed" in done.stdout
    assert sorted(p for p in folder.rglob("*") if p.is_file() and p.name != LOCK) == sorted(mine)


def test_clear_leaves_what_is_being_made(folder):
    part = folder / "features" / "visa-0-0"
    part.mkdir(mode=0o755)
    with locked(part):
        done = invoke("--clear")
        assert done.exit_code == 0 and f"kept {part}" in done.stderr
        assert json.loads(invoke("--json").stdout)["entries"][0]["state"] == "unfinished"
    assert invoke("--clear").exit_code == 0
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_json_goes_with_info_only(folder):
    done = invoke("--clear", "--json")
    assert done.exit_code == 2 and "--json goes with --info" in done.stderr
    assert len(list(folder.glob("*/*"))) == 3


@pytest.fixture
def drift(monkeypatch, tmp_path):
    """A cache folder with a drift of one object with two images, and what makes it again."""
    monkeypatch.setenv("IUFBENCH_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "data" / "nut"
    for number, name in enumerate(("train/good/0.png", "test/good/1.png")):
        (place / name).parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 90 + number, np.uint8)).save(place / name)
    dataset = open_dataset("parts", None, tmp_path / "data")
    return lambda: drifted(dataset, "nut", find_stream("drift_lighting"))


def test_streams_are_listed_verified_and_cleared(drift, tmp_path):
    root = drift().root
    (entry,) = json.loads(invoke("--json").stdout)["entries"]
    assert (entry["kind"], entry["name"], entry["rows"], entry["state"]) == (
        "streams",
        root.name,
        10,
        "complete",
    )
    assert entry["root"] == str(tmp_path / "data") and entry["bytes"] > 0
    assert invoke("--verify").exit_code == 0
    picture = next(root.rglob("*.png"))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    done = invoke("--verify")
    assert done.exit_code == 1 and f"{picture.relative_to(root)} is corrupted" in done.stdout
    left = root.parent / ".making-killed"
    left.mkdir()
    (left / LOCK).touch()
    assert invoke("--clear").exit_code == 0 and not root.parent.exists()


def test_images_of_a_drift_that_others_can_write_to_are_compared(drift):
    root = drift().root
    (root / "1").chmod(0o777)
    assert drift().root == root  # they are right
    for picture in root.rglob("*.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    with pytest.raises(RunError, match=r"differs from the data; set IUFBENCH_CACHE"):
        drift()
    (root / "1").chmod(0o755)
    drift()  # this user's own: `data cache --verify` finds corrupted files
    root.rename(root.with_name("elsewhere"))
    root.symlink_to("elsewhere")
    with pytest.raises(RunError, match="is a symbolic link"):
        drift()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away and becomes another user")
def test_a_drift_of_another_user_is_compared(drift):
    root = drift().root
    for path in (root, *root.rglob("*")):
        os.chown(path, 12345, 12345)
    assert drift().root == root
    for picture in root.rglob("*.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    with pytest.raises(RunError, match="differs from the data"):
        drift()


def test_a_synthetic_data_set_that_others_can_write_to_is_compared(monkeypatch, tmp_path):
    monkeypatch.setenv("IUFBENCH_CACHE", str(tmp_path))
    small = {"n_train": 1, "n_good": 1, "n_defective": 1}
    monkeypatch.setattr(writer, "DEFAULT_COUNTS", small)
    monkeypatch.setattr("iufbench.data.synthetic.make", partial(writer.make, workers=1, **small))
    root = synthetic_root("mvtec", progress=False)
    root.chmod(0o777)
    assert synthetic_root("mvtec") == root
    for picture in root.rglob("*.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    with pytest.raises(InputError, match=r"can be written to by other users, and .*\.png is not the image"):
        synthetic_root("mvtec")
    root.chmod(0o755)
    assert synthetic_root("mvtec") == root


def without_home(monkeypatch, tmp_path):
    """The user's home is not writable, and the system's temporary folder is this test's."""
    monkeypatch.delenv("IUFBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "read-only"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"iufbench-{os.geteuid()}"


def test_without_a_home_the_cache_is_a_private_folder(monkeypatch, tmp_path):
    folder = without_home(monkeypatch, tmp_path)
    assert cache_folder() == folder and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_folder() == folder  # again


@pytest.mark.parametrize("kind", ["open to others", "link", "file"])
def test_a_folder_with_a_different_layout_is_refused(monkeypatch, tmp_path, kind):
    folder = without_home(monkeypatch, tmp_path)
    if kind == "open to others":
        folder.mkdir()
        folder.chmod(0o755)
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    done = invoke("--info")
    assert done.exit_code == 2 and str(folder) in done.stderr and "IUFBENCH_CACHE" in done.stderr


def test_a_user_without_home_has_a_cache(monkeypatch, tmp_path):
    folder = without_home(monkeypatch, tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder() == folder
