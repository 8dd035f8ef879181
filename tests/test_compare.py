"""Comparing two strategies over common seeds, and exporting runs for other tools."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from fake_runs import make_run

from iufbench.reporting.compare import compare
from iufbench.reporting.export import export
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.render import render
from iufbench.support.errors import InputError


def two_steps(base, later, new):
    return [[base] * 8 + [np.nan] * 4, [later] * 8 + [new] * 4]


def row(table, level, summary):
    (found,) = [r for r in table.rows if r.labels == (level, summary)]
    return dict(zip((c.title for c in table.columns), found.cells))


@pytest.fixture
def results(tmp_path):
    """ACC of a: 85, 87, 89 (seeds 0, 1, 2); of b: 80, 83 (seeds 1, 2)."""
    for seed, value in enumerate((0.85, 0.87, 0.89)):
        make_run(tmp_path, "visa_8_4", "a", seed, image=two_steps(value, value, value))
    for seed, value in ((1, 0.80), (2, 0.83)):
        make_run(tmp_path, "visa_8_4", "b", seed, image=two_steps(value, value, value))
    return tmp_path


def test_only_common_seeds_count(results):
    table = compare(results, "a", "b")
    acc = row(table, "image", "ACC")
    assert acc["a"].raw == pytest.approx((87.0, 89.0))
    assert acc["b"].raw == pytest.approx((80.0, 83.0))
    assert acc["difference"].raw == pytest.approx((7.0, 6.0))
    assert acc["difference"].value == pytest.approx(6.5)
    assert acc["differences by seed"].text == "+7.0 +6.0"
    assert acc["effect d_z"].value == pytest.approx(6.5 / np.sqrt(0.5))
    assert acc["p"].value == pytest.approx(0.5)
    assert "2 common seeds" in table.caption and "0.5" in table.caption
    assert row(table, "image", "FM")["difference"].value == pytest.approx(0.0)
    assert "seed{0,1,2}" in render(table, "md")


@pytest.mark.parametrize("name", ["visa/visa_8_4/b/0a1b2c3d", "visa/visa_8_4/b/0a1b2c3d/seed1"])
def test_names_of_runs(results, name):
    assert row(compare(results, "a", name), "image", "ACC")["difference"].value == pytest.approx(6.5)


def test_paths_of_runs(results):
    path = results / "runs/visa/visa_8_4/b/0a1b2c3d/seed2"
    assert row(compare(results, str(path), "a"), "image", "ACC")["difference"].value == pytest.approx(-6.5)
    assert row(compare(results, str(path.parent), "a"), "image", "ACC")["difference"].raw


def test_two_recipes_of_one_strategy_are_distinguished(results):
    make_run(results, "visa_8_4", "a", 0, recipe_hash="ffff0000", image=two_steps(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match="fits several"):
        compare(results, "a", "b")
    table = compare(results, "visa/visa_8_4/a/0a1b2c3d", "visa/visa_8_4/a/ffff0000")
    assert table.columns[0].title == "a paper 0a1b2c3d"


def test_one_common_seed_has_no_spread(results):
    make_run(results, "visa_8_4", "c", 0, image=two_steps(0.8, 0.8, 0.8))
    acc = row(compare(results, "a", "c"), "image", "ACC")
    assert acc["difference"].value == pytest.approx(5.0) and acc["difference"].sd is None
    assert acc["95 % interval"].text == "" and acc["effect d_z"].value is None


def test_runs_on_images_of_another_size_are_compared_and_say_so(results):
    """As in tables: the size of the input belongs to the recipe, like the backbone."""
    make_run(results, "visa_8_4", "large", 0, image_size=512)
    notes = [text for _, text in compare(results, "a", "large").footnotes]
    assert ["images of 512 px" in text for text in notes] == [False, True]


def test_what_does_not_compare_is_an_error(results):
    make_run(results, "visa_8_4", "late", 9)
    with pytest.raises(InputError, match="no common seed"):
        compare(results, "a", "late")
    make_run(results, "visa_11_1", "other", 0)
    with pytest.raises(InputError, match="differ in protocol"):
        compare(results, "a", "other")
    make_run(results, "visa_8_4", "coarse", 0, map_size=128)
    with pytest.raises(InputError, match="differ in map size"):
        compare(results, "a", "coarse")
    with pytest.raises(InputError, match="did you mean 'late'"):
        compare(results, "a", "lates")
    with pytest.raises(InputError, match="did you mean 'auroc'"):
        compare(results, "a", "b", metric="aurok")


def test_a_metric_that_only_one_has_is_an_error(results):
    path = make_run(results, "visa_8_4", "c", 0)
    lines = (path / "metrics.csv").read_text().replace(",auroc,", ",ap,")
    (path / "metrics.csv").write_text(lines)
    with pytest.raises(InputError, match="no auroc summary that both can give"):
        compare(results, "a", "c")


def test_export_is_tidy_and_exact(results):
    files = export(results, results / "export")
    rows = list(csv.DictReader(files[0].open()))
    runs, _ = find_runs(results)
    assert len(rows) == sum(len(r.metrics) for r in runs)
    first = rows[0]
    assert first["run"] == "visa/visa_8_4/a/0a1b2c3d/seed0" and float(first["value"]) == 0.85
    assert {r["introduced"] for r in rows if r["object"] == "pcb4"} == {"1"}


def test_export_as_parquet(results):
    pytest.importorskip("pyarrow")
    csv_file, parquet_file = export(results, results / "export", ("csv", "parquet"))[:2]
    rows = list(csv.DictReader(csv_file.open()))
    table = pd.read_parquet(parquet_file)
    assert list(table.columns) == list(rows[0]) and len(table) == len(rows)
    for name in ("run", "object", "metric"):
        assert table[name].tolist() == [r[name] for r in rows]
    assert table["value"].tolist() == [float(r["value"]) for r in rows]
    assert table["seen"].dtype == bool and table["seed"].dtype.kind == "i"


def test_parquet_without_pyarrow_says_what_to_install(results, monkeypatch):
    monkeypatch.setattr("iufbench.reporting.export.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "iufbench\[parquet\]"'):
        export(results, results / "export", ("parquet",))
    assert not (results / "export").exists()


def test_export_in_the_layout_of_pyclad(results):
    path = next(p for p in export(results, results / "export") if p.name.endswith("_a_0a1b2c3d_seed0.json"))
    data = json.loads(path.read_text())
    found = data["concept_metric_callback_image-ROC-AUC"]
    base, increment = found["concepts_order"]
    assert base.startswith("candle+capsules+") and increment == "pcb2+pcb3+pcb4+pipe_fryum"
    assert found["metric_matrix"][base] == dict.fromkeys(base.split("+"), 0.85)
    assert len(found["metric_matrix"][increment]) == 12
    assert found["metrics"]["ContinualAverage"] == pytest.approx(0.85)
    assert found["metrics"]["ForwardTransfer"] is None  # unseen objects were not evaluated
    assert found["first_seen_step"]["pcb2"] == 1
    assert data["train_time"] == 300.0


def test_export_marks_undefined_values(tmp_path):
    make_run(tmp_path, "elpv_1_1", image=[[0.9, np.nan], [np.nan, 0.8]], masks=False)
    path = export(tmp_path, tmp_path / "export")[1]
    found = json.loads(path.read_text())["concept_metric_callback_image-ROC-AUC"]
    assert found["metric_matrix"] == {"mono": {"mono": 0.9}, "poly": {"mono": None, "poly": 0.8}}
    assert found["undefined_concepts"] == ["mono"]
