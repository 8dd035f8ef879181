"""The commands that read results: output files, exit codes and messages."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner
from fake_runs import make_run

from iufbench.cli.main import main
from iufbench.reporting.store import MetricRow, record_baseline

WRITING = ("tables", "figures", "report")


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def assert_one_line_error(done, code):
    assert done.exit_code == code, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    return errors[0]


@pytest.fixture
def results(tmp_path):
    for seed in (0, 1, 2):
        make_run(tmp_path, "elpv_1_1", "iuf", seed, masks=False)
        make_run(tmp_path, "elpv_1_1", "finetune", seed, masks=False, keep=0.5)
    return tmp_path


@pytest.fixture
def damaged(results):
    """A run without metrics.csv among valid ones."""
    path = make_run(results, "elpv_1_1", "ewc", masks=False)
    (path / "metrics.csv").unlink()
    return path


def test_tables_in_every_format(results):
    formats = [part for fmt in ("md", "tex", "csv", "html") for part in ("--format", fmt)]
    done = invoke("tables", "--results", results, *formats)
    assert done.exit_code == 0 and done.stderr == ""
    written = done.stdout.splitlines()
    assert {p.rpartition(".")[2] for p in written} == {"md", "tex", "csv", "html"}
    assert str(results / "tables" / "results_elpv_other_image.md") in written
    elsewhere = invoke("tables", "--results", results, "--out", results / "x")
    assert str(results / "x" / "results_elpv_other_image.md") in elsewhere.stdout.splitlines()


def test_report(results):
    done = invoke("report", "--results", results)
    assert done.exit_code == 0 and done.stdout.strip() == str(results / "report.html")
    assert (results / "report.html").read_text().startswith("<!DOCTYPE html>")
    other = invoke("report", "--results", results, "--out", results / "new" / "page.html")
    assert other.exit_code == 0 and (results / "new" / "page.html").is_file()


def test_export(results):
    done = invoke("export", "--results", results, "--out", results / "out")
    assert done.exit_code == 0
    assert str(results / "out" / "runs.csv") in done.stdout.splitlines()
    rows = list(csv.DictReader((results / "out" / "runs.csv").open()))
    assert {row["strategy"] for row in rows} == {"iuf", "finetune"}
    assert len(list((results / "out" / "pyclad").glob("*.json"))) == 6


def test_compare_prints_a_table(results):
    done = invoke("compare", "iuf", "finetune", "--results", results)
    assert done.exit_code == 0 and done.stdout.startswith("### IUF against finetune")
    assert "3 common seeds" in done.stdout and "differences by seed" in done.stdout
    as_csv = invoke("compare", "iuf", "finetune", "--results", results, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    (row,) = [r for r in rows if r["summary"] == "FM" and r["column"] == "difference"]
    assert row["n"] == "3" and float(row["value"]) < 0


@pytest.mark.parametrize(
    "arguments", [("tables",), ("figures",), ("report",), ("export",), ("compare", "iuf", "ewc")]
)
def test_no_runs_says_how_to_make_one_and_writes_nothing(tmp_path, arguments):
    done = invoke(*arguments, "--results", tmp_path / "none")
    assert "iufbench run --protocol" in assert_one_line_error(done, 2)
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("export",), ("compare", "iuf", "finetune")])
def test_export_and_compare_refuse_corrupted_runs_when_strict(results, damaged, command):
    done = invoke(*command, "--results", results)
    assert done.exit_code == 0 and f"skipped {damaged}" in done.stderr
    strict = invoke(*command, "--results", results, "--strict")
    assert str(damaged) in assert_one_line_error(strict, 1) and strict.stdout == ""


@pytest.mark.parametrize("command", WRITING)
def test_a_corrupted_run_is_skipped_by_name_and_strict_refuses(results, damaged, command):
    done = invoke(command, "--results", results)
    assert done.exit_code == 0, done.output
    (warning,) = done.stderr.splitlines()
    assert warning.startswith(f"warning: skipped {damaged}: ") and "metrics.csv" in warning
    strict = invoke(command, "--results", results, "--strict")
    assert str(damaged) in assert_one_line_error(strict, 1) and strict.stdout == ""


@pytest.mark.parametrize("command", WRITING)
def test_an_inconsistent_run_is_named_and_strict_refuses(results, command):
    path = results / "runs/elpv/elpv_1_1/iuf/0a1b2c3d/seed0/run.json"
    info = json.loads(path.read_text())
    info["summary"]["image"]["acc"] = 0.999
    path.write_text(json.dumps(info))
    done = invoke(command, "--results", results)
    assert done.exit_code == 0 and "0.999" in done.stderr and "iuf/0a1b2c3d/seed0" in done.stderr
    assert "0.999" in assert_one_line_error(invoke(command, "--results", results, "--strict"), 1)


def test_only_corrupted_runs_are_no_runs(tmp_path):
    (make_run(tmp_path, "elpv_1_1", masks=False) / "metrics.csv").unlink()
    assert "1 corrupted" in assert_one_line_error(invoke("tables", "--results", tmp_path), 2)


def test_unknown_names_are_answered_with_suggestions(results):
    wrong_metric = invoke("compare", "iuf", "finetune", "--metric", "aurok", "--results", results)
    assert "did you mean 'auroc'" in assert_one_line_error(wrong_metric, 2)
    wrong_name = invoke("compare", "iuf", "finetun", "--results", results)
    assert "did you mean 'finetune'" in assert_one_line_error(wrong_name, 2)
    assert "did you mean 'fm_step'" in assert_one_line_error(invoke("explain", "fm_stepp"), 2)
    assert invoke("tables", "--results", results, "--format", "docx").exit_code == 2


@pytest.mark.parametrize(
    "arguments", [("tables",), ("figures",), ("report",), ("export",), ("compare", "iuf", "finetune")]
)
def test_two_runs_of_one_identity_with_different_content_are_skipped(results, arguments):
    there = results / "runs/elpv/elpv_1_1/iuf/0a1b2c3d/seed0"
    here = make_run(results / "other", "elpv_1_1", "iuf", 0, masks=False, keep=0.3)
    here.rename(results / "runs" / "copy")
    done = invoke(*arguments, "--results", results)
    assert done.exit_code == 0, done.stderr
    assert f"skipped {there}: " in done.stderr and f"skipped {results}/runs/copy: " in done.stderr
    error = assert_one_line_error(invoke(*arguments, "--results", results, "--strict"), 1)
    assert "claims to be" in error


@pytest.mark.parametrize(
    ("asked", "name"), [("FM", "fm"), ("acc-final", "acc_final"), ("AUPRO@0.3", "aupro_30")]
)
def test_explain_knows_the_titles_of_tables(asked, name):
    done = invoke("explain", asked)
    assert done.exit_code == 0 and done.stdout.startswith(f"{name}: ")


def test_explain_forward_transfer(tmp_path):
    run = make_run(tmp_path, "elpv_1_1", image=[[0.9, 0.6], [0.7, 0.8]], masks=False)
    rows = [MetricRow(o, "image", "auroc", v, False) for o, v in (("mono", 0.3), ("poly", 0.45))]
    record_baseline(run, rows)
    assert "image: 0.150 (AUROC)" in invoke("explain", "fwt", run).stdout  # 0.6 - 0.45


def test_explain_on_a_run(tmp_path):
    run = make_run(tmp_path, "elpv_1_1", image=[[0.9, float("nan")], [0.7, 0.8]], masks=False)
    assert "image: 0.150 (AUROC)" in invoke("explain", "fm", run).stdout  # 0.9 - (0.7 + 0.8) / 2
    assert "mono 0.700, poly 0.800" in invoke("explain", "auroc", run).stdout
    assert "not measured" in invoke("explain", "aupro_30", run).stdout  # a run without masks
    assert "--eval-unseen" in invoke("explain", "fwt", run).stdout
    assert "not measured" in invoke("explain", "pyclad_fwt", run).stdout  # unseen objects
    assert invoke("explain", "fm", tmp_path).exit_code == 2  # no run directory


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("aupimo", "pixel_metrics(masks, maps, aupimo=True)"),
        ("intransigence", "intransigence(R, introduced, reference)"),
    ],
)
def test_explain_says_what_runs_do_not_record_and_how_to_get_it(name, function, tmp_path):
    run = make_run(tmp_path, "visa_11_1")
    for arguments in ((name,), (name, run)):
        shown = invoke("explain", *arguments).stdout
        assert "Runs do not record it" in shown and function in shown and "undefined" not in shown
    assert invoke("explain", name, run).stdout.endswith("not recorded\n")


def test_several_errors_are_on_separate_lines():
    done = invoke("sweep", "--protocol", "nonsense", "--strategy", "iuff\x1b[31m", "--dry-run")
    assert done.exit_code == 2
    first, *others = done.stderr.splitlines()
    assert first == "error: 2 errors, nothing was started:"
    assert len(others) == 2 and all(line.startswith("  ") for line in others)
    assert "\x1b" not in done.stderr and "\\x1b" in done.stderr


def test_a_formula_gets_an_apostrophe_only_for_a_spreadsheet(tmp_path):
    make_run(tmp_path, "elpv_1_1", "=1+1", masks=False)
    for option, expected in (([], "=1+1"), (["--for-spreadsheet"], "'=1+1")):
        assert invoke("export", "--results", tmp_path, *option).exit_code == 0
        rows = list(csv.DictReader(io.StringIO((tmp_path / "export" / "runs.csv").read_text())))
        assert {row["strategy"] for row in rows} == {expected}
