"""``iufbench board check``: every number that does not follow from the scores is named."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile

import pytest
from click.testing import CliRunner
from fake_runs import make_run

import iufbench as ib
from iufbench.cli.main import main
from iufbench.reporting.record import read_record, write_record
from iufbench.reporting.rundir import record_hashes

FILES = ("run.json", "metrics.csv", "scores.csv.gz")


@pytest.fixture
def sent(two_objects, tmp_path):
    """The files of a small run, as somebody would send them."""
    run = two_objects("padim")
    folder = tmp_path / "sent"
    folder.mkdir()
    for name in FILES:
        shutil.copy(run.path / name, folder / name)
    return folder


def check(path):
    done = CliRunner().invoke(main, ["board", "check", str(path)])
    assert "Traceback" not in done.output
    return done


def hashed_again(folder):
    record = read_record(folder)
    record.records_sha256 = record_hashes(folder)
    write_record(folder, record)


def scores_changed(folder, change):
    path = folder / "scores.csv.gz"
    head, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("\n".join([head, *change([r.split(",") for r in rows])]).encode()))


def test_an_honest_run_passes_and_says_what_was_not_checked(sent):
    found = ib.board_check(sent)
    assert found.ok and any("image metrics of 21 scores recomputed" in line for line in found.checked)
    (pixel,) = (line for line in found.unchecked if line.startswith("pixel metrics: "))
    rows = [r for r in (sent / "metrics.csv").read_text().splitlines() if ",pixel," in r]
    assert pixel.startswith(f"pixel metrics: {len(rows)} values") and len(rows) > 5
    done = check(sent)
    assert (
        done.exit_code == 0 and "not checked: pixel metrics" in done.stdout and "no difference" in done.stdout
    )


def better(text):
    """The image AUROC of candle after the last experience, raised."""
    found = [line for line in text.splitlines() if line.startswith("1,candle,image,auroc,")]
    value = found[0].split(",")[4]
    return text.replace(found[0], found[0].replace(value, "0.123"))


@pytest.mark.parametrize("rehash", [False, True])
def test_a_changed_metric_is_named(sent, rehash):
    path = sent / "metrics.csv"
    path.write_text(better(path.read_text()))
    if rehash:
        hashed_again(sent)
    done = check(sent)
    assert done.exit_code == 1
    assert "experience 1, candle, image auroc: stored 0.123, now " in done.stdout
    assert ("metrics.csv was changed after the run ended" in done.stdout) != rehash


def test_changed_scores_are_noticed_even_with_new_hashes(sent):
    def turned(rows):
        return [
            ",".join([*r[:4], repr(-float(r[4])), *r[5:]]) if r[:2] == ["1", "candle"] else ",".join(r)
            for r in rows
        ]

    scores_changed(sent, turned)
    hashed_again(sent)
    done = check(sent)
    assert done.exit_code == 1 and "experience 1, candle, image " in done.stdout
    assert "experience 0" not in done.stdout and "capsules, image" not in done.stdout


def test_a_changed_summary_and_other_experiences_are_named(sent):
    plain = json.loads((sent / "run.json").read_text())
    plain["summary"]["image"]["acc"] = 0.5
    plain["protocol"]["experiences"] = plain["protocol"]["experiences"][::-1]
    (sent / "run.json").write_text(json.dumps(plain))
    text = (sent / "metrics.csv").read_text()
    (sent / "metrics.csv").write_text(
        text.replace("candle", "@").replace("capsules", "candle").replace("@", "capsules")
    )
    done = check(sent)
    assert done.exit_code == 1
    assert "image acc 0.5 instead of" in done.stdout
    assert (
        "protocol visa_1_1: experiences [['capsules'], ['candle']], on the card [['candle'], " in done.stdout
    )


def test_labels_that_change_along_the_stream_are_noticed(sent):
    def flipped(rows):
        return [
            ",".join([*r[:3], str(1 - int(r[3])), *r[4:]] if r[:2] == ["1", "candle"] else r) for r in rows
        ]

    scores_changed(sent, flipped)
    done = check(sent)
    assert (
        done.exit_code == 1
        and "candle: other images or labels after experience 1 than after 0" in done.stdout
    )


def test_numbers_of_images_are_those_of_the_card(tmp_path):
    found = ib.board_check(make_run(tmp_path, "visa_11_1", "iuf", scores=True)).differences
    assert "candle: 12 good and 18 defective test images; the card of visa has 100 and 100" in found


def as_zip(folder, path, files=FILES, prefix="a/b/"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in files:
            packed.write(folder / name, prefix + name)
    return path


def test_archives_give_what_the_folder_gives(sent, tmp_path):
    expected = ib.board_check(sent)
    assert ib.board_check(as_zip(sent, tmp_path / "x.zip")) == expected
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as packed:
        packed.add(sent, "sent")
    assert ib.board_check(tmp_path / "x.tar.gz") == expected
    (sent / "metrics.csv").write_text(better((sent / "metrics.csv").read_text()))
    assert check(as_zip(sent, tmp_path / "y.zip", prefix="")).exit_code == 1


def test_what_is_no_submission_is_one_line_and_exit_code_2(sent, tmp_path):
    def refused(path, words):
        done = check(path)
        assert done.exit_code == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.output
        assert "iufbench-check-" not in done.stderr  # the temporary folder

    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "neither a run directory nor")
    refused(tmp_path / "nothing", "no such file")
    refused(tmp_path, "is not a run directory")
    refused(as_zip(sent, tmp_path / "no.zip", FILES[1:]), "holds no run")
    whole = as_zip(sent, tmp_path / "two.zip")
    with zipfile.ZipFile(whole, "a") as packed:
        packed.writestr("c/run.json", "{}")
    refused(whole, "holds 2 runs: check one at a time")
    data = as_zip(sent, tmp_path / "cut.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.zip", "neither a run directory nor")
    with tarfile.open(tmp_path / "link.tar", "w") as packed:
        packed.add(sent / "run.json", "run.json")
        entry = tarfile.TarInfo("metrics.csv")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(entry)
    refused(tmp_path / "link.tar", "metrics.csv")
    with tarfile.open(tmp_path / "large.tar.gz", "w:gz") as packed:
        packed.add(sent / "run.json", "run.json")
        entry = tarfile.TarInfo("metrics.csv")
        entry.size = 2**23 + 1
        packed.addfile(entry, io.BytesIO(bytes(entry.size)))
    refused(tmp_path / "large.tar.gz", "metrics.csv has more than 8,388,608 bytes")
    refused(as_zip(sent, tmp_path / "scores.zip", FILES[:2]), "no scores.csv.gz")
    (sent / "scores.csv.gz").write_bytes(b"\x1f\x8bhello")
    refused(as_zip(sent, tmp_path / "damaged.zip"), f"{tmp_path / 'damaged.zip'}/scores.csv.gz")
    record = read_record(sent)
    record.status = "running"
    write_record(sent, record)
    refused(sent, "the run is running, not complete")
