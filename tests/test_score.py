"""``iufbench score``: external scores and maps, evaluated exactly like a strategy's."""

from __future__ import annotations

import csv
import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import tiny_run

import iufbench as ib
from iufbench.cli.main import main
from iufbench.engine.external import prepare_scoring
from iufbench.engine.score import scoring_request
from iufbench.engine.submitted_maps import read_map
from iufbench.reporting.api import compare
from iufbench.reporting.report.build import write_report
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.build import read_tables
from iufbench.reporting.tables.render import render
from iufbench.support.errors import InputError
from iufbench.support.progress import Progress
from iufbench.trust import reevaluate

PROTOCOL = "visa_2_1"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of the harness, and its float32 anomaly maps in the format of a submission."""
    folder = tmp_path_factory.mktemp("score")
    run = tiny_run("frozen", data, folder / "results")
    maps = folder / "maps"

    def keep(path, found, names):
        step = path.parent.name.removeprefix("experience")
        for name, values in zip(names, found):
            place = (maps / step / name).with_suffix(".npy")
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(place, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reevaluate, "write_maps", keep)
        assert not reevaluate.evaluate_run(run.path, Progress(-1), save_maps=True, device="cpu")
    return run, maps


@pytest.fixture(autouse=True)
def figures(request, monkeypatch):
    """Figures take most of the time of scoring; one test checks them."""
    if request.function is not test_a_run_submitted_to_the_harness_gives_the_bytes_of_the_run:
        monkeypatch.setattr("iufbench.reporting.figures.build.write_run_figures", lambda path: [])


def rows_of(run) -> list[dict[str, str]]:
    with gzip.open(run.path / "scores.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


COLUMNS = ("experience", "object", "image", "score")


def write(path: Path, rows, columns=COLUMNS) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def submit(folder: Path, scores: Path, data: Path, *more: object):
    words = ["score", scores, "--protocol", PROTOCOL, "--data-root", data, "--name", "My method"]
    return CliRunner().invoke(main, [str(w) for w in [*words, "--results", folder, "-q", *more]])


def test_a_run_submitted_to_the_harness_gives_the_bytes_of_the_run(trained, data, tmp_path):
    run, maps = trained
    shuffled = np.random.default_rng(0).permutation(rows_of(run)).tolist()
    scores = write(tmp_path / "mine.csv", shuffled, ("image", "score", "label", "object", "experience"))
    done = submit(tmp_path / "out", scores, data, "--maps", maps, "--link", "https://example.org/paper")
    assert done.exit_code == 0, done.output
    assert "My method (external)" in done.output
    (found,), skipped = find_runs(tmp_path / "out")
    assert not skipped
    for name in ("metrics.csv", "scores.csv.gz"):
        assert (found.path / name).read_bytes() == (run.path / name).read_bytes()
    record = found.record
    assert record.kind == "external" and record.external and not run.record.external
    assert record.dataset.fingerprint == run.record.dataset.fingerprint
    assert record.submission.scores_sha256 == hashlib.sha256(scores.read_bytes()).hexdigest()
    assert record.submission.link == "https://example.org/paper" and len(record.submission.maps_sha256) == 64
    assert {p.name for p in found.figures} == {"matrix_image.png", "matrix_pixel.png", "curve.png"}
    again = submit(tmp_path / "out", scores, data, "--maps", maps)  # the same is not an error
    assert again.exit_code == 0 and len(find_runs(tmp_path / "out")[0]) == 1


@pytest.fixture
def beside(trained, data, tmp_path):
    """A results folder with the run and the same scores as an external run of seed 0."""
    run, _ = trained
    shutil.copytree(run.path, tmp_path / "r/runs" / run.id, ignore=shutil.ignore_patterns("checkpoints"))
    scores = write(tmp_path / "mine.csv", rows_of(run))
    found = ib.score(scores, PROTOCOL, "My method", data_root=data, results=tmp_path / "r", quiet=True)
    return tmp_path / "r", found


def test_external_rows_are_marked_wherever_they_stand_beside_measured_ones(beside, tmp_path):
    results, found = beside
    assert found.names("pixel") == [] and found.names("image")  # without maps
    for table in read_tables(results, warn=lambda _: None):
        text = render(table, "md")
        marked = text.count("My method (external)") + text.count("external-My method")  # titles and ids
        assert text.count("My method") == marked
    text = write_report(results, tmp_path / "r.html", warn=lambda _: None).read_text()
    assert text.count("My method (external)") >= 3
    table = compare("external-My method", "frozen", results=results)
    row = next(r for r in table.rows if r.labels[1] == "ACC-final")
    assert row.cells[2].value == 0  # the same scores
    assert "My method (external)" in table.title


def test_a_template_has_every_score_that_is_needed(trained, data, tmp_path):
    run, _ = trained
    words = ["score", "--template", tmp_path / "t.csv", "--protocol", PROTOCOL, "--data-root", data, "-q"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS) and {row["score"] for row in rows} == {""}

    def keys(of):
        return sorted((row["experience"], row["object"], row["image"]) for row in of)

    assert keys(rows) == keys(rows_of(run))
    again = CliRunner().invoke(main, list(map(str, words)))
    assert again.exit_code == 2 and "already exists" in again.stderr


def test_without_images_labels_come_from_the_official_list(tmp_path, visa_tree, monkeypatch):
    """The same images and labels as from the data set itself; pixel metrics still need it."""
    monkeypatch.delenv("IUFBENCH_DATA", raising=False)
    of = {}
    for root in (None, visa_tree):
        scoring = prepare_scoring(
            scoring_request("visa_11_1", "x", 0, tmp_path, data_root=root), progress=False
        )
        of[root] = {k: sorted(zip(v, scoring.expected.labels[k])) for k, v in scoring.expected.images.items()}
    assert of[None] == of[visa_tree] and len(of[None]) == 12
    words = ["--template", str(tmp_path / "t.csv"), "--protocol", "visa_11_1", "-q"]
    assert CliRunner().invoke(main, ["score", *words]).exit_code == 0
    text = (tmp_path / "t.csv").read_text().splitlines()
    rows = [text[0], *(line + str(k % 7) for k, line in enumerate(text[1:]))]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    run = ib.score(tmp_path / "mine.csv", "visa_11_1", "Mine", results=tmp_path / "r", quiet=True)
    assert run.names("pixel") == [] and run.record.dataset.root is None and not run.synthetic
    assert "labels from the official list of images; no image or mask was read" in run.record.dataset.notes
    assert run.record.dataset.counts["candle"] == {"train": 900, "test": 200}
    assert ib.board_check(run.path).ok
    (tmp_path / "maps").mkdir()
    with pytest.raises(InputError, match="no folder given for visa"):
        ib.score(tmp_path / "mine.csv", "visa_11_1", "M", maps=tmp_path / "maps", results=tmp_path / "s")
    with pytest.raises(InputError, match="no folder given for mpdd"):
        ib.score(tmp_path / "mine.csv", "mpdd_5_1", "M", results=tmp_path / "s")


# Bad input ----------------------------------------------------------------------------------------------


def changed(**cells):
    return lambda rows: [{**rows[0], **cells}, *rows[1:]]


ROWS = {
    "a missing image": (lambda rows: rows[1:], "no score for candle/"),
    "many missing images": (lambda rows: rows[:8], "and 24 more"),
    "no rows": (lambda rows: [], "and 32 more"),
    "a doubled image": (lambda rows: [*rows, rows[4]], "row 37: {image4} after experience 0 appears twice"),
    "an unknown image": (
        changed(image="candle/0.png"),
        "row 2: 'candle/0.png' is not a test image of candle",
    ),
    "an image of another object": (lambda rows: [{**rows[0], "object": "capsules"}], "of capsules"),
    "an unknown object": (changed(object="candles"), "unknown object 'candles'; did you mean 'candle'?"),
    "an object outside the protocol": (changed(object="pcb1"), "known: candle, capsules, cashew"),
    "an experience too many": (changed(experience="2"), "experience is '2', but the protocol has 0 to 1"),
    "a negative experience": (changed(experience="-1"), "experience is '-1'"),
    "an experience in words": (changed(experience="first"), "experience is 'first'"),
    "an object before its time": (
        lambda rows: [*rows, {**rows[-1], "experience": "0"}],
        "after experience 0",
    ),
    "no score": (changed(score=""), "row 2: the score is empty"),
    "a score that is no number": (changed(score="high"), "score 'high' is not a finite number"),
    "nan": (changed(score="nan"), "score 'nan'"),
    "infinity": (changed(score="1e999"), "score '1e999'"),
    "a wrong label": (changed(label="0"), "row 2: label is '0', but {image0} has label 1"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_are_wrong_are_named(name, trained, data, tmp_path):
    change, words = ROWS[name]
    rows = rows_of(trained[0])
    columns = (*COLUMNS, "label") if name == "a wrong label" else COLUMNS
    words = words.format(image0=rows[0]["image"], image4=rows[4]["image"])
    scores = write(tmp_path / "mine.csv", change(rows), columns)
    refused(submit(tmp_path / "out", scores, data), words, tmp_path / "out")


def refused(done, words: str, out: Path) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    assert words in done.stderr, done.stderr
    assert not out.exists(), "something was written"


def test_the_number_of_rows_in_the_table_above(trained):
    assert len(rows_of(trained[0])) == 35


FILES = {
    "empty": (b"", "the file is empty"),
    "no header": (b"0,candle,a.png,1\n", "no column 'experience'"),
    "another column": (b"experience,object,image,score,mask\n", "unknown column 'mask'"),
    "a column twice": (b"experience,object,image,score,score\n", "a column appears twice"),
    "semicolons": (b"experience;object;image;score\n", "no column 'experience' in"),
    "too few cells": (b"experience,object,image,score\n0,candle\n", "row 2: 2 cells, expected 4"),
    "a long row": (b"experience,object,image,score\n" + b"a" * 200_000, "more than 65,536 characters"),
    "binary": (bytes(range(256)), "error: "),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_wrong(name, data, tmp_path):
    content, words = FILES[name]
    (tmp_path / "mine.csv").write_bytes(content)
    refused(submit(tmp_path / "out", tmp_path / "mine.csv", data), words, tmp_path / "out")


def test_a_spreadsheets_mark_and_compression_are_read(trained, data, tmp_path):
    text = write(tmp_path / "a.csv", rows_of(trained[0])).read_text()
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(("\ufeff" + text).encode()))
    done = submit(tmp_path / "out", tmp_path / "mine.csv.gz", data)
    assert done.exit_code == 0, done.output


OPTIONS = {
    "a missing file": (["nowhere.csv"], {}, "there is no such file"),
    "no name": (["mine.csv"], {"--name": None}, "--name METHOD"),
    "no file": ([], {}, "score needs SCORES.csv"),
    "a name that is a path": (["mine.csv"], {"--name": "../x"}, "no '/'"),
    "an empty name": (["mine.csv"], {"--name": ""}, "at least one character"),
    "a long name": (["mine.csv"], {"--name": "x" * 81}, "at most 80 characters"),
    "a link that runs code": (["mine.csv"], {"--link": "javascript:alert(1)"}, "https://"),
    "masks without maps": (["mine.csv"], {"--masks": "."}, "--masks needs --maps"),
    "kept maps without maps": (["mine.csv"], {"--save-maps": ""}, "--save-maps needs --maps"),
    "no folder of maps": (["mine.csv"], {"--maps": "nowhere"}, "--maps nowhere: there is no such folder"),
    "an unknown protocol": (["mine.csv"], {"--protocol": "visa"}, "unknown protocol 'visa'"),
    "other data": (["mine.csv"], {"--data-root": "nowhere"}, "nowhere is not a folder"),
    "two kinds of data": (["mine.csv"], {"--synthetic": ""}, "--synthetic and --data-root"),
    "a template of scores": (["mine.csv"], {"--template": "t.csv"}, "without SCORES.csv"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_wrong(name, trained, data, tmp_path, monkeypatch):
    arguments, changes, words = OPTIONS[name]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.csv", rows_of(trained[0]))
    options = {"--protocol": PROTOCOL, "--data-root": str(data), "--name": "m", "--results": "out", **changes}
    more = [w for k, v in options.items() if v is not None for w in ((k, v) if v or k == "--name" else (k,))]
    refused(CliRunner().invoke(main, ["score", *arguments, *more, "-q"]), words, tmp_path / "out")


def test_another_submission_does_not_replace_one(beside, trained, data, tmp_path):
    results, found = beside
    before = {p: p.read_bytes() for p in found.path.iterdir() if p.is_file()}
    rows = rows_of(trained[0])
    scores = write(tmp_path / "other.csv", [{**r, "score": str(-float(r["score"]))} for r in rows])
    done = submit(results, scores, data)
    assert done.exit_code == 2 and "holds other scores" in done.stderr
    assert {p: p.read_bytes() for p in found.path.iterdir() if p.is_file()} == before
    assert submit(results, scores, data, "--seed", "1").exit_code == 0


def test_an_external_run_cannot_be_trained_again_and_says_so(beside):
    for command in ("verify", "rerun", "evaluate"):
        done = CliRunner().invoke(main, [command, str(beside[1].path), "-q"])
        assert done.exit_code == 2 and "external run" in done.stderr, (command, done.output)
    done = CliRunner().invoke(main, ["verify", str(beside[1].path), "--scores-only", "-q"])
    assert done.exit_code == 0, done.output


# Maps ---------------------------------------------------------------------------------------------------


def test_maps_of_any_kind_and_size(tmp_path):
    values = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    counts = (values * 65535).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", values.astype(np.float64))
    Image.fromarray(values).save(tmp_path / "c.tiff")
    Image.fromarray(counts).save(tmp_path / "d.png")
    for name in ("a.npy", "b.npy", "c.tiff"):
        np.testing.assert_array_equal(read_map(tmp_path / name), values)
    np.testing.assert_array_equal(read_map(tmp_path / "d.png"), counts.astype(np.float32))


MAPS = {
    "8 bits": ("m.png", lambda p: Image.fromarray(np.zeros((9, 9), np.uint8)).save(p), "256 levels"),
    "colours": ("m.png", lambda p: Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(p), "mode RGB"),
    "three axes": ("m.npy", lambda p: np.save(p, np.zeros((2, 9, 9))), "a matrix of numbers"),
    "truth values": ("m.npy", lambda p: np.save(p, np.zeros((9, 9), bool)), "a matrix of numbers"),
    "nothing": ("m.npy", lambda p: np.save(p, np.zeros((0, 9))), "a matrix of numbers"),
    "objects": ("m.npy", lambda p: np.save(p, np.array([[{}]]), allow_pickle=True), "without pickle"),
    "nan": ("m.npy", lambda p: np.save(p, np.full((9, 9), np.nan)), "NaN or infinite"),
    "too large for float32": ("m.npy", lambda p: np.save(p, np.full((9, 9), 1e300)), "NaN or infinite"),
    "no array": ("m.npy", lambda p: p.write_bytes(b"hello"), "without pickle"),
    "no picture": ("m.png", lambda p: p.write_bytes(b"hello"), "m.png"),
    "a claim of terabytes": (
        "m.npy",
        lambda p: p.write_bytes(
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117)
            + b"\n"
        ),
        "without pickle",
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_that_are_wrong(name, tmp_path):
    file, make, words = MAPS[name]
    make(tmp_path / file)
    with pytest.raises(InputError, match=words):
        read_map(tmp_path / file)


def test_missing_and_doubled_maps_are_named(trained, data, tmp_path):
    run, maps = trained
    scores = write(tmp_path / "mine.csv", rows_of(run))
    copy = tmp_path / "maps"
    shutil.copytree(maps, copy)
    first = (copy / "0" / rows_of(run)[0]["image"]).with_suffix(".npy")
    shutil.copy(first, first.with_suffix(".png"))
    refused(submit(tmp_path / "out", scores, data, "--maps", copy), "two maps", tmp_path / "out")
    first.with_suffix(".png").unlink()
    first.unlink()
    refused(submit(tmp_path / "out", scores, data, "--maps", copy), "no map of candle", tmp_path / "out")


def test_masks_of_ones_own(trained, data, tmp_path):
    """Masks in a folder give the same pixel metrics as the data set's own."""
    run, maps = trained
    scores = write(tmp_path / "mine.csv", rows_of(run))
    scoring = prepare_scoring(scoring_request(PROTOCOL, "x", 0, tmp_path, data_root=data), progress=False)
    for sample in scoring.dataset.select("test"):
        if sample.label and sample.object in scoring.protocol.objects:
            place = (tmp_path / "masks" / sample.image.relative_to(data)).with_suffix(".png")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.mask, place)
    words = ("--maps", maps, "--masks", tmp_path / "masks")
    done = submit(tmp_path / "a", scores, data, *words)
    assert done.exit_code == 0, done.output
    (found,), _ = find_runs(tmp_path / "a")
    assert (found.path / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()
    place.unlink()
    refused(submit(tmp_path / "b", scores, data, *words), "no mask of the defective image", tmp_path / "b")
