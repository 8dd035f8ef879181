"""Run directories: written content is read back, and corruption is reported."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import math
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from fake_runs import make_run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iufbench.reporting import store
from iufbench.reporting.store import MetricRow, ScoreRow
from iufbench.support import files
from iufbench.support.errors import InputError, RunError


def test_path_is_the_identity(tmp_path):
    path = store.run_path(tmp_path, "visa", "visa_8_1x4", "iuf", "deadbeef", 3)
    assert path.relative_to(tmp_path).as_posix() == "runs/visa/visa_8_1x4/iuf/deadbeef/seed3"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\nb"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="strategy name"):
        store.run_path(tmp_path, "visa", "visa_8_4", name, "deadbeef", 0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_csv_gives_the_same_float64_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("csv") / "v.csv"
    files.write_csv(path, ["v"], [[v] for v in values])
    back = [float(line) for line in path.read_text().splitlines()[1:]]
    assert struct.pack(f"{len(values)}d", *back) == struct.pack(f"{len(values)}d", *values)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tmp_path_factory.mktemp("table") / "t.csv"


@settings(deadline=None)
@given(text=st.text('ab,,\n\n"\r\0', max_size=40), block=st.sampled_from([24, 2**16]))
@example(text='a,b\n1,2\n"x\ny",3\n4,5', block=24)
@example(text="a,b\n1\n2,3,4\n", block=2**16)
@example(text="a\n\nb\n", block=2**16)
def test_rows_and_columns_are_those_of_pythons_reader(table, text, block):
    table.write_text(text, newline="")
    expected = list(csv.reader(io.StringIO(text, newline="")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "LONGEST_ROW", block)  # also how much is read at a time
        assert [row for rows in files.read_csv(table) for row in rows] == expected
        parts = list(files.csv_parts(table))
    if expected:
        assert parts[0].rows() == expected[:1]
    for part in parts:
        rows = part.rows()
        for width in (2, 3):
            found = part.columns(width)
            even = {*map(len, rows)} == {width}
            assert (None if found is None else [*map(list, zip(*found))]) == (rows if even else None)


def test_matrix_is_what_was_recorded(tmp_path):
    r = np.full((5, 12), np.nan)
    for t in range(5):
        r[t, : 8 + t] = np.linspace(0.1, 0.9, 8 + t) / 3
    run = store.load_run(make_run(tmp_path, image=r))
    matrix = run.matrix("image", "auroc")
    np.testing.assert_array_equal(matrix.values, r)
    assert matrix.introduced.tolist() == [0] * 8 + [1, 2, 3, 4]
    assert matrix.objects[8] == "pcb2"
    assert matrix.complete
    np.testing.assert_array_equal(matrix.seen, ~np.isnan(r))


def test_scores_and_log_come_back(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", masks=False, scores=True)
    run = store.load_run(path)
    scores = run.scores()
    assert len(scores) == 30 * 3 and set(scores["label"]) == {0, 1}
    assert run.train_log()["loss"].tolist() == [1.0, 0.5]
    assert run.names("pixel") == []
    with pytest.raises(InputError, match="no pixel metrics"):
        run.matrix("pixel")


def test_unknown_metric_has_a_suggestion(tmp_path):
    run = store.load_run(make_run(tmp_path))
    with pytest.raises(InputError, match="did you mean 'auroc'"):
        run.matrix("image", "aurok")


def test_undefined_value_is_empty_and_nan(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", image=[[math.nan, math.nan], [0.9, 0.8]], masks=False)
    assert "0,mono,image,auroc,,1" in (path / "metrics.csv").read_text()
    matrix = store.load_run(path).matrix("image")
    assert math.isnan(matrix.values[0, 0]) and not matrix.complete


def test_recording_again_replaces_this_and_later_experiences(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    rows = [MetricRow("mono", "image", "auroc", 0.5, True)], [ScoreRow("mono", "a,b\n.png", 0, 0.1)]
    other = [MetricRow("mono", "image", "auroc", 0.9, True)], [ScoreRow("mono", "c.png", 1, 7.0)]
    for experience in (0, 1, 2):
        store.record_experience(one, experience, *other)
    for experience in (0, 1):
        store.record_experience(one, experience, *rows)  # resumed from the start
    for experience in (0, 1):
        store.record_experience(two, experience, *rows)
    for name in ("metrics.csv", "scores.csv.gz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_gz_bytes_do_not_depend_on_the_clock(tmp_path, monkeypatch):
    rows = [ScoreRow("mono", "a.png", 0, 0.25)]
    store.record_experience(tmp_path / "a", 0, [], rows)
    monkeypatch.setattr("time.time", lambda: 2e9)
    store.record_experience(tmp_path / "b", 0, [], rows)
    assert (tmp_path / "a/scores.csv.gz").read_bytes() == (tmp_path / "b/scores.csv.gz").read_bytes()


def test_scores_of_images_whose_names_are_not_utf8_are_read(tmp_path):
    path = make_run(tmp_path, "visa_11_1", scores=True) / "scores.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    fields = lines[1].split(b",")
    fields[2] = b"f\xfc\xdf.png"
    path.write_bytes(gzip.compress(b"".join([lines[0], b",".join(fields), *lines[2:]])))
    frame = store.load_run(path.parent).scores()
    assert os.fsencode(frame["image"][0]) == b"f\xfc\xdf.png"


def test_names_that_are_not_utf8_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    store.record_experience(tmp_path, 0, [], [ScoreRow("mono", name, 0, 0.25)])
    assert b"caf\xe9.png" in gzip.decompress((tmp_path / "scores.csv.gz").read_bytes())


def test_json_takes_numpy_paths_and_nan(tmp_path):
    path = files.write_json(tmp_path / "a.json", {"a": np.float32(0.5), "b": tmp_path, "c": math.nan})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": str(tmp_path), "c": None}


def test_full_disk_is_a_run_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "run.json", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"run\.json.*No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_train_log_columns_may_differ(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", masks=False)
    store.record_training(path, 1, [{"epoch": 0, "loss": 0.25, "distill": 0.125}])
    log = store.load_run(path).train_log()
    assert log["distill"].isna().tolist() == [True, False]


def test_incomplete_runs_count_only_when_asked_for(tmp_path):
    make_run(tmp_path, "visa_8_4")
    make_run(tmp_path, "visa_11_1", status="running")
    runs, damaged = store.find_runs(tmp_path)
    assert [r.id for r in runs] == ["visa/visa_8_4/iuf/0a1b2c3d/seed0"] and not damaged
    runs, _ = store.find_runs(tmp_path, include_incomplete=True)
    assert [r.complete for r in runs] == [False, True]


def test_a_run_killed_before_its_first_evaluation_can_be_read(tmp_path):
    path = make_run(tmp_path, status="running")
    (path / "metrics.csv").unlink()
    runs, damaged = store.find_runs(tmp_path, include_incomplete=True)
    assert len(runs) == 1 and not damaged


def _edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: (p / "run.json").write_text("{"), "run.json, line 1: not JSON"),
        (lambda p: (p / "run.json").write_text("[]"), "expected an object"),
        (lambda p: (p / "run.json").unlink(), "no run.json"),
        (lambda p: _edit(p / "run.json", '"format": 1', '"format": 2'), "format 2"),
        (lambda p: _edit(p / "run.json", '"seed": 0', '"seed": 1'), "id is"),
        (lambda p: _edit(p / "run.json", '"synthetic": false', '"synthetic": 0'), "dataset.synthetic"),
        (lambda p: (p / "metrics.csv").unlink(), "metrics.csv"),
        (lambda p: _edit(p / "metrics.csv", "auroc,0.", "auroc,1."), "outside"),
        (lambda p: _edit(p / "metrics.csv", "auroc,0.", "auroc,x"), "not a number"),
        (lambda p: _edit(p / "metrics.csv", "candle", "candl"), "not in the protocol"),
        (lambda p: _edit(p / "metrics.csv", "0,candle,image", "9,candle,image"), "experience 9"),
        (lambda p: _edit(p / "metrics.csv", ",seen", ""), "columns"),
        (
            lambda p: (p / "metrics.csv").write_bytes((p / "metrics.csv").read_bytes()[:-30]),
            "cells, expected",
        ),
        (
            lambda p: (p / "metrics.csv").write_text(
                (p / "metrics.csv").read_text() + (p / "metrics.csv").read_text().splitlines()[1] + "\n"
            ),
            "twice",
        ),
    ],
)
def test_a_corrupted_run_is_skipped_with_its_name_and_reason(tmp_path, damage, reason):
    make_run(tmp_path, "visa_8_4")
    path = make_run(tmp_path, "visa_8_1x4")
    damage(path)
    runs, damaged = store.find_runs(tmp_path)
    assert [r.info["protocol"]["id"] for r in runs] == ["visa_8_4"]
    assert [p for p, _ in damaged] == [path]
    assert reason in damaged[0][1]


def test_a_truncated_score_file_is_a_run_error(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", masks=False, scores=True)
    data = (path / "scores.csv.gz").read_bytes()
    (path / "scores.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match=r"scores\.csv\.gz"):
        store.load_run(path).scores()


def test_a_copy_counts_once_and_rivals_are_skipped(tmp_path):
    path = make_run(tmp_path)
    copy = tmp_path / "runs" / "from-elsewhere" / "seed0"
    shutil.copytree(path, copy)
    assert len(store.find_runs(tmp_path)[0]) == 1
    _edit(copy / "run.json", "2026-01-01T00:10:00Z", "2026-01-01T00:11:00Z")
    make_run(tmp_path, "visa_8_4")
    runs, skipped = store.find_runs(tmp_path)
    assert [run.record.protocol.id for run in runs] == ["visa_8_4"]  # neither is believed, others count
    assert {place for place, _ in skipped} == {path, copy}
    assert all("claims to be visa/visa_8_1x4/iuf/0a1b2c3d/seed0" in reason for _, reason in skipped)


def test_what_reads_results_needs_neither_torch_nor_avalanche():
    modules = ["store", "tables.build", "figures.build", "report.build", "compare", "export"]
    code = "import sys, " + ", ".join(f"iufbench.reporting.{m}" for m in modules)
    code += "; print(*{'torch', 'avalanche'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_results_is_no_runs(tmp_path):
    assert store.find_runs(tmp_path / "nowhere") == ([], [])
