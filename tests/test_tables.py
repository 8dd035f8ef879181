"""Tables: golden renderings, and that nothing but raw records can change a number."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from fake_runs import make_run

from iufbench.reporting.collect import collect
from iufbench.reporting.compare import compare_groups
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.rundir import record_hashes
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.build import build_tables, write_tables
from iufbench.reporting.tables.render import FORMATS, render
from iufbench.reporting.tables.table import Cell, Column, Row, Table, mark_best, measured
from iufbench.support.errors import InputError, RunError

GOLDEN = Path(__file__).parent / "data" / "tables"


def two_steps(base: float, later: float, new: float) -> list[list[float]]:
    """R of visa_8_4: 8 base objects at ``base``, then at ``later`` with 4 new ones at ``new``."""
    return [[base] * 8 + [np.nan] * 4, [later] * 8 + [new] * 4]


@pytest.fixture
def results(tmp_path):
    """c = .90, .80: ACC 85, FM 10 and c = .92, .86: ACC 89, FM 6 for IUF; .80, .65: 72.5, 15 for UniAD."""
    make_run(tmp_path, "visa_8_4", "iuf", 0, image=two_steps(0.9, 0.75, 0.9), pixel=two_steps(0.9, 0.9, 0.9))
    make_run(tmp_path, "visa_8_4", "iuf", 1, image=two_steps(0.92, 0.84, 0.9), pixel=two_steps(0.8, 0.7, 0.7))
    make_run(
        tmp_path, "visa_8_4", "uniad", 0, image=two_steps(0.8, 0.6, 0.75), pixel=two_steps(0.5, 0.5, 0.5)
    )
    return tmp_path


def tables_of(results):
    return {t.name: t for t in build_tables(find_runs(results)[0], published())}


def row_of(table, *labels):
    (row,) = [r for r in table.rows if r.labels == labels]
    return row


def shown(table, *labels):
    return [c.value for c in row_of(table, *labels).cells]


def test_numbers_by_hand(results):
    table = tables_of(results)["results_visa_image"]
    place = [(c.group, c.title) for c in table.columns].index(("8-4 with 1 Step", "ACC ↑"))
    acc, fm = row_of(table, "IUF", "paper 0a1b2c3d").cells[place : place + 2]
    assert acc.value == pytest.approx(87.0) and acc.sd == pytest.approx(np.sqrt(8.0))
    assert acc.raw == pytest.approx((85.0, 89.0))
    assert fm.value == pytest.approx(8.0)
    assert row_of(table, "IUF", "published").cells[place].value == 80.1
    assert row_of(table, "IUF", "difference").cells[place].value == pytest.approx(6.9)
    assert shown(table, "UniAD", "paper 0a1b2c3d")[place] == pytest.approx(72.5)
    assert acc.best and fm.best
    assert table.columns[0].group == "11-1 with 1 Step"
    assert row_of(table, "IUF", "paper 0a1b2c3d").cells[0] == Cell()


@pytest.mark.parametrize("fmt", ["md", "tex"])
@pytest.mark.parametrize("name", ["results_visa_image", "objects_visa_visa_8_4_image", "costs_visa"])
def test_golden(results, name, fmt):
    text = render(tables_of(results)[name], fmt)
    path = GOLDEN / f"{name}.{fmt}"
    if os.environ.get("IUFBENCH_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_published_values_in_conflict_are_shown_with_their_caveat(tmp_path):
    make_run(tmp_path, "mvtec_10_1x5", "iuf")
    tables = tables_of(tmp_path)
    row = row_of(tables["results_mvtec_pixel"], "IUF", "published")
    column = [(c.group, c.title) for c in tables["results_mvtec_pixel"].columns].index(
        ("10-1 with 5 Steps", "FM ↓")
    )
    assert (row.cells[column].value, row.cells[column].sign) == (1.0, "*")  # a copy of the paper's table
    figure = (
        published()
        .results.query(
            "method == 'IUF' and protocol == 'mvtec_10_1x5' and level == 'pixel' and metric == 'FM'"
        )
        .set_index("kind")["value_percent"]
    )
    assert dict(figure) == {"read_from_figure": 2.6, "printed_secondary": 1.0}
    notes = [text for mark, text in tables["results_mvtec_pixel"].footnotes if not mark]
    about = [n for n in notes if n.startswith("IUF, 10-1 with 5 Steps, pixel level, FM 1.0: ")]
    assert len(about) == 1 and "2.59" in about[0]
    assert not any("FM 1.0" in text for _, text in tables["results_mvtec_image"].footnotes)


def test_every_published_value_of_the_paper_is_shown(results):
    table = tables_of(results)["results_visa_image"]
    assert [r.labels[0] for r in table.rows if r.kind == "published"] == [
        "UniAD",
        "UniAD + EWC",
        "UniAD + SI",
        "UniAD + MAS",
        "UniAD + LVT",
        "IUF",
        "CDAD †",
    ]
    text = render(table, "md")
    assert "≈" in text and "reading error" in text and "IUF (ECCV 2024" in text
    assert "runs visa/visa\\_8\\_4/iuf/0a1b2c3d/seed{0,1}" in text


def test_tampering_with_the_summary_changes_no_table_and_is_reported(results):
    before = {name: render(t, "csv") for name, t in tables_of(results).items()}
    path = results / "runs/visa/visa_8_4/iuf/0a1b2c3d/seed0/run.json"
    info = json.loads(path.read_text())
    info["summary"]["image"]["acc"] = 0.999
    path.write_text(json.dumps(info))
    after = {name: render(t, "csv") for name, t in tables_of(results).items()}
    assert after == before
    warnings = []
    files = write_tables(results, results / "tables", ("md",), warn=warnings.append)
    assert any("seed0" in w and "summary disagrees" in w and "0.999" in w for w in warnings)
    assert "summary disagrees" in next(f for f in files if f.name == "results_visa_image.md").read_text()
    with pytest.raises(RunError, match="summary disagrees"):
        write_tables(results, results / "tables", strict=True)


def test_tampering_with_image_metrics_is_undone_from_the_scores(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", masks=False, scores=True)
    before = write_tables(tmp_path, tmp_path / "a", ("csv",))
    lines = (path / "metrics.csv").read_text().splitlines()
    lines[1] = re.sub(r"auroc,[^,]+,", "auroc,0.125,", lines[1])
    (path / "metrics.csv").write_text("\n".join(lines) + "\n")
    warnings = []
    after = write_tables(tmp_path, tmp_path / "b", ("csv",), warn=warnings.append)
    assert (
        "metrics.csv disagrees with scores.csv.gz (auroc of mono after experience 0; 1 in all)" in warnings[0]
    )

    def values(files):
        return [[row["values"] for row in csv.DictReader(io.StringIO(f.read_text()))] for f in files]

    assert values(before) == values(after)


def test_a_changed_file_of_results_is_reported_for_any_change(results):
    """Pixel values cannot be computed again from scores: the hash of the file tells that it was changed."""
    path = results / "runs/visa/visa_8_4/iuf/0a1b2c3d/seed0"
    info = json.loads((path / "run.json").read_text())
    info["records_sha256"] = record_hashes(path)
    (path / "run.json").write_text(json.dumps(info))
    assert collect(results).warnings() == []
    text = (path / "metrics.csv").read_text()
    changed = re.sub(r"(candle,pixel,auroc),[^,]+,", r"\1,0.999,", text, count=1)
    assert changed != text
    (path / "metrics.csv").write_text(changed)
    assert any("metrics.csv was changed after the run ended" in w for w in collect(results).warnings())
    assert "was changed" in render(tables_of_collection(results)["results_visa_pixel"], "md")
    with pytest.raises(RunError, match="was changed after the run ended"):
        write_tables(results, results / "tables", strict=True)
    (path / "metrics.csv").write_text(text)
    (path / "scores.csv.gz").unlink()
    assert any("scores.csv.gz was removed" in w for w in collect(results).warnings())


def tables_of_collection(results):
    found = collect(results)
    return {t.name: t for t in build_tables(found.runs, published(), found.footnotes)}


def other_data(path):
    text = (path / "run.json").read_text()
    (path / "run.json").write_text(text.replace("f00d" * 16, "beef" * 16))


def test_runs_on_different_data_never_share_a_table(results):
    """The same objects with another fingerprint are other images, also in another protocol and strategy."""
    other_data(make_run(results, "visa_11_1", "ewc", 0))
    other_data(make_run(results, "visa_8_4", "iuf", 7))
    tables = tables_of_collection(results)
    assert "results_visa_image" not in tables
    one, other = (tables[f"results_visa_{data}_image"] for data in ("f00df00d", "beefbeef"))
    assert "VisA (data f00df00d)" in one.title and "VisA (data beefbeef)" in other.title
    assert {r.labels[0] for r in one.rows if r.kind == "ours"} == {"IUF", "UniAD"}
    assert {r.labels[0] for r in other.rows if r.kind == "ours"} == {"IUF", "UniAD + EWC"}
    assert [len(c.raw) for c in row_of(one, "IUF", "paper 0a1b2c3d").cells] == [0, 0, 2, 2, 0, 0]
    for name, table in tables.items():
        text = render(table, "csv")
        assert "f00df00d" in name or "beefbeef" in name
        assert not ("visa_8_4/iuf/0a1b2c3d/seed7" in text and "visa_8_4/uniad/" in text), name
    warnings = []
    write_tables(results, results / "tables", warn=warnings.append)
    assert len(warnings) == 1 and "different data named visa (12 objects)" in warnings[0]
    with pytest.raises(RunError, match="different data named visa"):
        write_tables(results, results / "tables", strict=True)


def test_runs_by_code_that_scores_differently_never_share_a_table(results):
    make_run(results, "visa_8_4", "ewc", 0, scores_version=2)
    tables = tables_of_collection(results)
    assert {r.labels[0] for r in tables["results_visa_scoresversion2_image"].rows if r.kind == "ours"} == {
        "UniAD + EWC"
    }
    with pytest.raises(RunError, match="scored by different code"):
        write_tables(results, results / "tables", strict=True)


def test_maps_of_different_sizes_never_share_a_table(results):
    make_run(results, "visa_8_4", "ewc", 0, map_size=128)
    tables = tables_of_collection(results)
    assert {r.labels[0] for r in tables["results_visa_mapsize128_pixel"].rows if r.kind == "ours"} == {
        "UniAD + EWC"
    }
    with pytest.raises(
        RunError, match=r"maps of different sizes are in separate tables: 128 px: .*; 224 px: "
    ):
        write_tables(results, results / "tables", strict=True)


def test_a_protocol_with_other_objects_is_another_one(tmp_path, monkeypatch):
    """The first objects of a folder without a card change when a new one sorts before them."""
    for seed, objects in ((0, ["bolt", "nut"]), (1, ["axle", "bolt"])):
        monkeypatch.setitem(fake_runs.OBJECTS, "elpv", objects)
        make_run(tmp_path, "elpv_1_1", "iuf", seed)
    found = collect(tmp_path)
    assert found.differences == [
        "runs of elpv_1_1 with different objects are in separate tables: axle, bolt: "
        "elpv/elpv_1_1/iuf/0a1b2c3d/seed1; bolt, nut: elpv/elpv_1_1/iuf/0a1b2c3d/seed0"
    ]
    named = [name for name in tables_of_collection(tmp_path) if name.startswith("results_")]
    assert len(named) == 4 and all("_objects" in name for name in named)
    one, other = group_runs(found.runs)
    with pytest.raises(InputError, match="differ in objects: "):
        compare_groups(one, other)


def test_partial_data_stand_apart_and_say_so(results):
    partial = {"objects": 4, "objects_known": 12}
    path = make_run(results, "visa_2_1x2", "iuf", 0)
    make_run(results, "visa_1_1", "iuf", 0)
    info = json.loads((path / "run.json").read_text())
    info["dataset"] |= partial
    (path / "run.json").write_text(json.dumps(info))
    tables = tables_of_collection(results)
    own = {n: t for n, t in tables.items() if "4of12objects" in n}
    assert len(own) > 4 and all("(4 of 12 objects)" in t.title for t in own.values())
    assert not any("visa_2_1x2" in render(t, "csv") for n, t in tables.items() if n not in own)


def test_a_latex_table_is_one_booktabs_table(results):
    for k in range(25):
        make_run(results, "visa_8_4", f"own{k}", 0)
    for table in tables_of(results).values():
        text = render(table, "tex")
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule") == 1
        body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
        assert len(body) == len(table.rows)
        columns = len(table.label_columns) + len(table.columns)
        assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {columns - 1}


def test_what_is_undefined_is_reported_with_its_reason(tmp_path):
    """An object whose test images are all defective has no AUROC: no mean over what is left."""
    path = make_run(tmp_path, "elpv_1_1", masks=False, scores=True)
    scores = gzip.decompress((path / "scores.csv.gz").read_bytes()).decode()
    lines = [line for line in scores.splitlines(keepends=True) if "poly/good" not in line]
    with gzip.open(path / "scores.csv.gz", "wt") as file:
        file.writelines(lines)
    metrics = (path / "metrics.csv").read_text()
    (path / "metrics.csv").write_text(re.sub(r"(1,poly,image,auroc),[^,]+,", r"\1,,", metrics))
    info = json.loads((path / "run.json").read_text())
    reason = "poly: no good test images: image AUROC is undefined; image ACC and FM stay empty"
    del info["summary"]
    (path / "run.json").write_text(json.dumps({**info, "warnings": [reason]}))
    assert any(reason in line for line in collect(tmp_path).warnings())
    table = tables_of_collection(tmp_path)["results_elpv_other_image"]
    assert [c.value for r in table.rows for c in r.cells] == [None, None]
    assert reason in dict(table.footnotes)[table.rows[0].note]
    objects = tables_of_collection(tmp_path)["objects_elpv_elpv_1_1_image"]
    assert [c.value is None for c in objects.rows[1].cells] == [False, True, True]  # mono, poly, mean
    write_tables(tmp_path, tmp_path / "tables", strict=True, warn=lambda _: None)  # not a disagreement


def test_incomplete_stays_empty(tmp_path):
    image = np.array(two_steps(0.9, 0.8, 0.7))
    image[1, 3] = np.nan  # undefined for one object
    make_run(tmp_path, "visa_8_4", "iuf", 0, image=image)
    make_run(tmp_path, "visa_8_4", "iuf", 1, image=two_steps(0.9, 0.8, 0.7))
    tables = tables_of(tmp_path)
    column = [(c.group, c.title) for c in tables["results_visa_image"].columns].index(
        ("8-4 with 1 Step", "ACC ↑")
    )
    row = row_of(tables["results_visa_image"], "IUF", "paper 0a1b2c3d")
    assert row.cells[column] == Cell()
    assert row_of(tables["results_visa_pixel"], "IUF", "paper 0a1b2c3d").cells[column].value is not None
    markdown = next(
        line for line in render(tables["results_visa_image"], "md").splitlines() if "0a1b" in line
    )
    assert "nan" not in markdown and "| 0.0" not in markdown
    learnt = row_of(tables["objects_visa_visa_8_4_image"], "when introduced", "IUF", "paper 0a1b2c3d (n=2)")
    assert learnt.cells[3].value == pytest.approx(90.0)


def test_a_running_run_is_not_in_any_table_but_named(results):
    make_run(results, "visa_8_4", "ewc", 0, status="running")
    warnings = []
    write_tables(results, results / "tables", warn=warnings.append)
    assert warnings == ["not counted: visa/visa_8_4/ewc/0a1b2c3d/seed0 is running"]
    assert "/ewc/" not in (results / "tables/results_visa_image.md").read_text()


def test_a_corrupted_run_is_skipped_with_its_name_and_reason(results):
    path = make_run(results, "visa_8_4", "ewc", 0)
    (path / "metrics.csv").unlink()
    warnings = []
    assert write_tables(results, results / "tables", warn=warnings.append)
    assert len(warnings) == 1 and str(path) in warnings[0] and "metrics.csv" in warnings[0]
    with pytest.raises(RunError, match=r"metrics\.csv"):
        write_tables(results, results / "tables", strict=True)


def test_no_runs_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="iufbench run"):
        write_tables(tmp_path, tmp_path / "tables")


@pytest.mark.parametrize(
    "change",
    [
        {"recipe_hash": "ffffffff"},
        {"image_size": 256},
        {"preset": "quick"},
        {"backbone": {"name": "resnet18", "weights_sha256": "cd" * 32, "random": True}},
    ],
)
def test_different_recipes_are_never_merged(results, change):
    make_run(results, "visa_8_4", "iuf", 7, **change)
    rows = [
        r for r in tables_of(results)["results_visa_image"].rows if r.labels[0] == "IUF" and r.kind == "ours"
    ]
    place = 2
    assert sorted(len(r.cells[place].raw) for r in rows) == [1, 2]


def test_a_recipe_for_each_protocol_shares_a_row(results):
    make_run(results, "visa_11_1", "uniad", 0, recipe_hash="12345678")
    table = tables_of(results)["results_visa_image"]
    row = row_of(table, "UniAD", "paper 2 recipes")
    assert [c.value is not None for c in row.cells] == [True, True, True, True, False, False]
    assert "12345678/seed0" in dict(table.footnotes)[row.note]


def test_the_protocol_is_named_where_there_is_only_one(tmp_path):
    make_run(tmp_path, "visa_8_4", synthetic=True)
    table = tables_of(tmp_path)["results_visa-synthetic_pixel"]
    assert {c.group for c in table.columns} == {"8-4 with 1 Step"}


def test_synthetic_results_stand_alone(results):
    make_run(results, "visa_8_4", "iuf", 0, synthetic=True)
    tables = tables_of(results)
    table = tables["results_visa-synthetic_image"]
    assert table.synthetic and {r.kind for r in table.rows} == {"ours"}
    for fmt in ("md", "tex", "html"):
        text = render(table, fmt)
        assert "SYNTHETIC DATA" in text and "80.1" not in text
    assert not tables["results_visa_image"].synthetic
    assert "synthetic" not in render(tables["results_visa_image"], "md")


def test_joint_training_does_not_compete(results):
    experiences = [find_runs(results)[0][0].objects]
    path = make_run(results, "visa_8_4", "joint", 0)
    info = json.loads((path / "run.json").read_text())
    info["protocol"]["experiences"] = [list(experiences[0])]
    info.pop("summary")
    (path / "run.json").write_text(json.dumps(info))
    rows = ["experience,object,level,metric,value,seen"] + [
        f"0,{o},image,auroc,0.99,1" for o in experiences[0]
    ]
    (path / "metrics.csv").write_text("\n".join(rows) + "\n")
    table = tables_of(results)["results_visa_image"]
    row = row_of(table, "joint", "paper 0a1b2c3d")
    assert row.cells[2].value == pytest.approx(99.0) and not row.cells[2].best
    assert row.cells[3] == Cell()
    assert "all objects at once" in dict(table.footnotes)[row.note]


def test_ablation(tmp_path):
    make_run(tmp_path, "mvtec_10_1x5", "iuf")
    make_run(tmp_path, "mvtec_10_1x5", "iuf_without_scl", keep=0.7)
    table = tables_of(tmp_path)["ablation_mvtec_mvtec_10_1x5"]
    published_rows = {r.labels[0]: [c.value for c in r.cells] for r in table.rows if r.kind == "published"}
    assert published_rows["IUF, without object-aware self-attention"] == [84.2, 14.2, 90.3, 8.6]
    assert published_rows["IUF, full"] == [94.2, 3.2, 95.1, 1.0]
    assert row_of(table, "IUF, without semantic compression loss", "difference")
    assert "secondary source" in render(table, "md")


def test_objects_one_by_one(tmp_path):
    make_run(tmp_path, "mvtec_1_1x14", "iuf")
    table = tables_of(tmp_path)["one_by_one_mvtec"]
    assert shown(table, "IUF", "published") == [76.2, 17.1]
    assert shown(table, "DeCoFlow", "published")[0] == 98.4
    assert shown(table, "Dinomaly, joint", "published")[0] == 99.6
    text = render(table, "md")
    assert "secondary source" in text and "reproduced by others" in text and "NC-TFAD" not in text
    assert "UCAD: ViT-B/16 (ImageNet-21k); re-weighted maximum; selection: test" in text


def test_later_published_values_all_have_a_source_and_a_known_kind():
    numbers = published()
    later = numbers.later
    assert len(later) == 439 and later["source"].notna().all()
    assert set(later["kind"]) == {"printed", "printed_secondary", "reproduced_by_third_party"}
    shown_methods = {method for _, method, _ in numbers._shown_later()}
    assert shown_methods <= set(numbers.setups["method"])
    assert set(numbers.setups["selection"]) <= {"test", "none", "unknown"}


@pytest.mark.parametrize("fmt", list(FORMATS))
def test_hostile_names_are_escaped(tmp_path, fmt):
    name = "<script>alert(1)<!script> & |_$%#{}~^"
    make_run(tmp_path, "elpv_1_1", name, masks=False)
    for table in tables_of(tmp_path).values():
        text = render(table, fmt)
        if fmt in ("md", "html"):
            assert "<script" not in text
        if fmt == "md":
            widths = {
                len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")
            }
            assert len(widths) == 1
        if fmt == "csv":
            assert name in {r["strategy"] for r in csv.DictReader(io.StringIO(text))}


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is not installed: whether LaTeX tables compile is checked only where it is",
)
def test_latex_compiles(results):
    make_run(results, "visa_8_4", "<a>_&%$#{}~^ß→", 0)
    make_run(results, "visa_2_2x5", "iuf", 0, synthetic=True)
    files = write_tables(results, results / "tables", ("tex",))
    body = "\n".join(rf"\input{{{f.stem}}}\clearpage" for f in files)
    packages = r"\usepackage{booktabs,graphicx}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (results / "tables/all.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=results / "tables",
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_csv_keeps_every_seed(results):
    rows = list(csv.DictReader(io.StringIO(render(tables_of(results)["results_visa_image"], "csv"))))
    row = next(r for r in rows if r["source"] == "paper 0a1b2c3d" and r["strategy"] == "IUF" and r["values"])
    assert [float(v) for v in row["values"].split()] == pytest.approx([85.0, 89.0])
    assert row["n"] == "2" and float(row["value"]) == pytest.approx(87.0)


def test_costs(results):
    table = tables_of(results)["costs_visa"]
    row = row_of(table, "8-4 with 1 Step", "IUF", "paper 0a1b2c3d")
    values = {f"{c.group} {c.title}".strip(): cell for c, cell in zip(table.columns, row.cells)}
    assert values["parameters trainable (M)"].value == pytest.approx(7.654321)
    assert values["kept for later bytes (MB)"].value == pytest.approx(2.0)
    assert values["seconds training"].value == pytest.approx(300.5)
    # one increment of four objects
    assert values["adding one object seconds"].value == pytest.approx(201 / 4)
    assert values["adding one object images shown"].value == pytest.approx(1010 / 4)
    assert values["adding one object bytes (MB)"].value == pytest.approx(1 / 4)
    assert values["images/s evaluation"].value == pytest.approx((8 + 12) * 30 / 60)
    assert values["object id at training"].text == "yes"


def spread_rows(table, level="image", summary="ACC ↑"):
    found = [r for r in table.rows if r.labels[:2] == (level, summary)]
    return {(r.labels[2], r.labels[4]): r.cells for r in found}


def test_spread_over_seeds_keeps_every_value(results):
    rows = spread_rows(tables_of(results)["spread_visa_visa_8_4"])
    mean, interval, singles = rows["IUF", "seeds 0, 1; order own"]
    assert mean.value == pytest.approx(87.0) and mean.raw == pytest.approx((85.0, 89.0))
    assert interval.text == "85.0 to 89.0" and singles.text == "85.0 89.0"
    single = rows["UniAD", "seed 0; order own"]
    assert single[0].sd is None and single[1].text == "" and single[2].text == "72.5"


def test_orders_are_summarised_together_and_shown_apart(results):
    """ACC 87 (mean of 85 and 89) in the own order, 80 in the other: 83.5 over orders, one value each."""
    make_run(results, "visa_8_4+order3", "iuf", 0, image=two_steps(0.85, 0.75, 0.75))
    tables = tables_of(results)
    rows = spread_rows(tables["spread_visa_visa_8_4"])
    mean, _, singles = rows["IUF", "orders own, 3"]
    assert mean.value == pytest.approx(83.5) and mean.raw == pytest.approx((87.0, 80.0))
    assert mean.sd == pytest.approx(7 / np.sqrt(2)) and singles.text == "87.0 80.0"
    assert rows["IUF", "seed 0; order 3"][0].value == pytest.approx(80.0)
    assert ("UniAD", "orders own") not in rows and len(rows) == 4
    table = tables["spread_visa_visa_8_4"]
    (note,) = {r.note for r in table.rows if r.labels[4] == "orders own, 3"}
    assert "visa_8_4/iuf" in dict(table.footnotes)[note] and "order3/iuf" in dict(table.footnotes)[note]
    assert len(row_of(tables["results_visa_image"], "IUF", "paper 0a1b2c3d").cells[2].raw) == 2
    assert {c.group for c in tables["results_visa_other_image"].columns} == {"8-4 with 1 Step, order 3"}


@pytest.mark.parametrize("change", [{"recipe_hash": "ffffffff"}, {"image_size": 256}, {"preset": "quick"}])
def test_orders_of_different_recipes_are_not_summarised_together(results, change):
    make_run(results, "visa_8_4+order3", "iuf", 0, **change)
    rows = spread_rows(tables_of(results)["spread_visa_visa_8_4"])
    assert not any(over.startswith("orders") for _, over in rows)


def test_an_order_without_a_value_leaves_no_mean(results):
    image = np.array(two_steps(0.9, 0.8, 0.7))
    image[1, 3] = np.nan
    make_run(results, "visa_8_4+order3", "iuf", 0, image=image)
    mean, interval, singles = spread_rows(tables_of(results)["spread_visa_visa_8_4"])["IUF", "orders own, 3"]
    assert mean == Cell() and interval.text == "" and singles.text == "87.0 missing"


def test_missing_costs_are_empty(tmp_path):
    make_run(tmp_path, "elpv_1_1", masks=False, costs={}, seconds={}, environment={})
    (row,) = tables_of(tmp_path)["costs_elpv"].rows
    assert all(c.value is None for c in row.cells)


def test_best_ties_by_what_is_printed():
    rows = [Row((str(k),), (Cell(v),)) for k, v in enumerate((90.04, 90.0, 89.9))]
    assert [r.cells[0].best for r in mark_best([Column("x", higher_is_better=True)], rows)] == [
        True,
        True,
        False,
    ]


def test_a_seed_without_a_value_leaves_no_mean():
    assert measured([0.5, np.nan]) == Cell()
    assert measured([]) == Cell()


def test_unknown_format(results):
    with pytest.raises(InputError, match="unknown table format"):
        write_tables(results, results / "tables", ("docx",))


def test_tables_do_not_depend_on_where_runs_were_found(results, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(results / "runs", other / "runs")
    assert {n: render(t, "md") for n, t in tables_of(results).items()} == {
        n: render(t, "md") for n, t in tables_of(other).items()
    }


def test_collect_warns_once_per_problem(results):
    assert collect(results).warnings() == []


def test_table_html_is_well_formed(results):
    from xml.etree import ElementTree

    for table in tables_of(results).values():
        text = render(table, "html")
        assert isinstance(table, Table)
        ElementTree.fromstring(f"<div>{text}</div>")


def test_of_false_alarms_the_fewest_are_best(results):
    """IUF raises twice as many false alarms as UniAD."""
    for path in sorted(results.glob("runs/*/*/*/*/*/metrics.csv")):
        rate = "0.4" if "iuf" in path.parts else "0.2"
        rows = [line for line in path.read_text().splitlines() if ",image,auroc," in line]
        alarms = [line.replace(",auroc,", ",false_alarm_frozen,").split(",") for line in rows]
        with path.open("a") as file:
            file.writelines(",".join([*cells[:4], rate, cells[5]]) + "\n" for cells in alarms)
    (found,) = [t for t in tables_of(results).values() if t.title.endswith("all metrics")]
    place = [c.title for c in found.columns].index("false alarms (frozen)")
    best = {row.labels[1]: row.cells[place].best for row in found.rows if row.cells[place].value is not None}
    assert best == {"IUF": False, "UniAD": True}
