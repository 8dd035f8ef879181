"""The diagnosis of selection on test images: correct, separate, and without any effect on the run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import SETTINGS, tiny_run

from iufbench.cli.main import main
from iufbench.engine.selection import COLUMNS, SELECTION, optimism
from iufbench.reporting.rundir import read_rows
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.build import write_tables
from iufbench.support.errors import RunError
from iufbench.support.files import write_csv

HARD = ("base.epochs=3", "base.lr=1e-2", "increment.lr=1e-2")  # a rate at which epochs differ


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return tiny_run("uniad", data, tmp_path_factory.mktemp("plain"), HARD)


@pytest.fixture(scope="module")
def diagnosed(data, tmp_path_factory):
    return tiny_run("uniad", data, tmp_path_factory.mktemp("diagnosed"), HARD, diagnose_every=1)


def aurocs(run, experience, epoch, level="image"):
    rows = read_rows(run.path / SELECTION, COLUMNS)
    wanted = (str(experience), epoch, level)
    return {
        r["object"]: float(r["auroc"]) for r in rows if (r["experience"], r["epoch"], r["level"]) == wanted
    }


def test_the_run_is_the_same_bit_by_bit(plain, diagnosed):
    for name in ("metrics.csv", "scores.csv.gz", "train_log.csv"):
        assert (plain.path / name).read_bytes() == (diagnosed.path / name).read_bytes()
    assert plain.id == diagnosed.id and plain.info["summary"] == diagnosed.info["summary"]
    files = {p.name for p in diagnosed.path.rglob("*") if p.is_file()}
    assert files - {p.name for p in plain.path.rglob("*") if p.is_file()} == {SELECTION}


def test_an_epoch_is_worth_what_a_run_that_ends_with_it_reports(diagnosed, data, tmp_path):
    short = tiny_run("uniad", data, tmp_path, (*HARD, "base.epochs=1"))
    matrix = short.matrix("image")
    assert aurocs(diagnosed, 0, "1") == {
        o: matrix.values[0, matrix.objects.index(o)] for o in ("candle", "capsules")
    }


def test_every_epoch_is_looked_at_and_the_last_is_what_was_reported(diagnosed):
    rows = read_rows(diagnosed.path / SELECTION, COLUMNS)
    assert {(r["experience"], r["epoch"]) for r in rows} == {
        ("0", ""), ("0", "1"), ("0", "2"), ("0", "3"), ("1", ""), ("1", "1"), ("1", "2")
    }  # fmt: skip
    for level in ("image", "pixel"):
        for number, last in ((0, "3"), (1, "2")):  # nothing of this learner comes after its last epoch
            matrix = diagnosed.matrix(level)
            stored = {
                o: matrix.values[number, i] for i, o in enumerate(matrix.objects) if matrix.seen[number, i]
            }
            assert aurocs(diagnosed, number, "", level) == stored == aurocs(diagnosed, number, last, level)


def test_the_gap_by_hand(diagnosed):
    for level, found in optimism(diagnosed.path).items():
        best, reported = [], []
        for number, epochs in ((0, "123"), (1, "12")):
            means = [np.mean(list(aurocs(diagnosed, number, e, level).values())) for e in epochs]
            best.append(max(means))
            reported.append(means[-1])
        assert found.best == pytest.approx(np.mean(best)) and found.reported == pytest.approx(
            np.mean(reported)
        )
        assert found.gap >= 0
        assert found.reported == pytest.approx(diagnosed.info["summary"][level]["acc"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "", 0, "candle", "image", 0.5)], "no reported image AUROC in experience 1"),
        ([(1, "", 1, "candle", "image", "x")], "row 2: AUROC is 'x', not a number from 0 to 1"),
        ([(1, "", 1, "candle", "image", "inf")], "row 2: AUROC is 'inf'"),
        ([(1, "", 1, "candle", "image", 7)], "row 2: AUROC is '7'"),
    ],
)
def test_a_corrupted_diagnosis_is_named(tmp_path, rows, message):
    write_csv(tmp_path / SELECTION, COLUMNS, rows)
    with pytest.raises(RunError, match=message):
        optimism(tmp_path)


def test_tables_do_not_know_of_it(plain, diagnosed, tmp_path):
    texts = []
    for run in (plain, diagnosed):
        results = run.path.parents[5]
        texts.append(
            [p.read_text() for p in write_tables(results, tmp_path / str(len(texts)), ["md", "csv"], True)]
        )
    assert len(texts[0]) > 0
    costs = [[t for t in text if "train [s]" not in t and "seconds" not in t.lower()] for text in texts]
    assert costs[0] == costs[1]


def test_at_the_command_line_it_is_marked_as_a_diagnosis(data, tmp_path):
    settings = [part for s in (*SETTINGS, "base.epochs=3") for part in ("--set", s)]
    common = ["run", "--protocol", "visa_2_1", "--strategy", "uniad", "--data-root", str(data), "-q",
              "--device", "cpu", "--results", str(tmp_path), *settings]  # fmt: skip
    done = CliRunner().invoke(main, [*common, "--diagnose-every", "2"])
    assert done.exit_code == 2 and "--diagnose-selection" in done.stderr
    done = CliRunner().invoke(main, [*common, "--diagnose-selection", "--diagnose-every", "2"])
    assert done.exit_code == 0, done.output
    assert "DIAGNOSIS, not a result" in done.stderr and "DIAGNOSIS" not in done.stdout
    (found,), _ = find_runs(tmp_path)
    assert {r["epoch"] for r in read_rows(found.path / SELECTION)} == {"", "2"}
    assert json.loads((found.path / "run.json").read_text())["request"]["diagnose_every"] == 2
    # Once more without it, from the start: no stale diagnosis stays.
    assert CliRunner().invoke(main, [*common, "--restart"]).exit_code == 0
    assert not (found.path / SELECTION).exists()
    done = CliRunner().invoke(main, [*common, "--diagnose-selection"])
    assert done.exit_code == 2 and "--restart" in done.stderr
