"""The report: one file, no network, everything escaped, and a page that works in a browser."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
from fake_runs import fake_matrix, make_run
from pages import Page, eventually

from iufbench.metrics.summaries import DEFINITIONS
from iufbench.reporting.report.build import write_report
from iufbench.reporting.report.parts import FILTERS
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.build import read_tables
from iufbench.support.errors import InputError

HOSTILE = '<script>alert("x")<!script>'


@pytest.fixture
def results(tmp_path):
    make_run(tmp_path, "visa_8_1x4", "iuf", 0)
    make_run(tmp_path, "visa_8_1x4", "iuf", 1)
    make_run(tmp_path, "visa_8_1x4", "uniad", keep=0.7)
    make_run(tmp_path, "visa_8_1x4", "iuf", synthetic=True)
    make_run(tmp_path, "elpv_1_1", HOSTILE, masks=False)
    return tmp_path


@pytest.fixture
def text(results):
    return write_report(results, results / "report.html", warn=lambda _: None).read_text()


def test_one_file_without_network(text):
    page = Page(text)
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert not attrs.get("src", "data:").startswith(("http", "//", "file"))
        assert tag != "script" or "src" not in attrs
    assert "default-src 'none'" in text
    assert all(link.startswith("#") for link in page.links)


def test_every_link_has_its_target_and_ids_are_unique(text):
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert {f"def-{name}" for name in DEFINITIONS} <= set(page.ids)


def test_names_from_users_are_escaped(text):
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)" in text
    assert len(re.findall("<script", text)) == 1
    Page(text)


def test_hostile_paths_and_recipes_are_escaped(tmp_path):
    evil = '"><img src=x onerror=alert(1)>'
    make_run(
        tmp_path,
        "elpv_1_1",
        masks=False,
        command=evil,
        recipe={evil: [evil]},
        environment={"git": {evil: evil}},
    )
    text = write_report(tmp_path, tmp_path / "r.html").read_text()
    assert "<img src=x" not in text
    Page(text)


def test_overview_has_measured_and_published_rows(text):
    rows = Page(text).rows
    kinds = [(r["data-strategy"], r["data-kind"], r["data-level"]) for r in rows]
    assert kinds.count(("IUF", "published", "image")) == 1
    assert ("UniAD + LVT", "published", "pixel") in kinds
    assert ("UniAD", "ours", "pixel") in kinds
    assert {r["data-metric"] for r in rows} == {"AUROC"}
    synthetic = [r for r in rows if "synthetic" in r["data-dataset"]]
    assert len(synthetic) == 2 and {r["data-kind"] for r in synthetic} == {"ours"}
    assert '<span class="badge">synthetic</span>' in text


ALL = [("iuf", 0.8), ("ewc", 0.7), ("frozen", 1.0), ("replay", 0.9), ("si", 0.5), ("joint", 1.0)]


@pytest.fixture
def many(tmp_path):
    """Strategies of which no two keep equally much; only ``frozen`` learns nothing new."""
    for strategy, keep in ALL:
        for seed in (0, 1):
            image = fake_matrix("visa_8_1x4", "image", keep, seed)
            image[:, 8:] -= 0.2 * (strategy == "frozen")
            image = image[-1:] if strategy == "joint" else image
            make_run(
                tmp_path, "visa_8_1x4", strategy, seed, keep=keep, image=image, joint=strategy == "joint"
            )
    make_run(tmp_path, "elpv_1_1", "iuf", masks=False)
    return tmp_path


def cells_of(text):
    """The ranking of each stream as lists of (text, data-value) cells, first the heads."""
    tables = re.findall(r'<table class="ranking sortable">.*?</table>', text, re.DOTALL)
    found = []
    for table in tables:
        _, head, *rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        heads = re.findall(r'data-title="(.*?)"', head)
        cells = [re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        clean = re.compile(r"<.*?>")
        values = [
            [(clean.sub("", t).strip(), re.findall('data-value="(.*?)"', a)) for a, t in r] for r in cells
        ]
        found.append((heads, values))
    return found


def test_the_report_opens_on_one_ranked_row_a_strategy(many):
    text = write_report(many, many / "r.html", warn=lambda _: None).read_text()
    first = re.search(r"<table.*?>", text)
    assert first is not None and "ranking" in first[0]
    assert text.index("<table") < text.index("<details")  # not folded, and before all that is
    (_, elpv), (heads, visa) = cells_of(text)
    assert len(elpv) == 1 and len(visa) == len(ALL)
    assert len({row[1][0] for row in visa}) == len(ALL)
    assert [row[0][0] for row in visa] == [str(k + 1) for k in range(len(ALL))]
    final = heads.index("ACC-final ↑")
    values = [float(row[final][1][0]) for row in visa]
    assert values == sorted(values, reverse=True)
    for row in visa:
        assert len(row) == len(heads)
    assert {row[-1][0] for row in visa if row[1][0] != "frozen"} <= {"better", "not better"}
    assert [row[-1][0] for row in visa if row[1][0] == "frozen"] == [""]


def test_ranked_values_are_those_of_the_tables(many):
    text = write_report(many, many / "r.html", warn=lambda _: None).read_text()
    tables = {t.name: t for t in read_tables(many)}
    _, (heads, visa) = cells_of(text)
    rows = {row[1][0]: row for row in visa}
    continual, costs = tables["continual_visa_visa_8_1x4"], tables["costs_visa"]
    compared = 0
    image = heads.index("ACC ↑")
    for level, start in (("image", image), ("pixel", heads.index("ACC ↑", image + 1))):
        for row in continual.rows:
            if row.labels[0] != level:
                continue
            for column, cell in zip(continual.columns, row.cells):
                if column.title in heads:
                    place = heads.index(column.title, start)
                    shown, (value,) = rows[row.labels[1]][place]
                    assert value == ("" if cell.value is None else repr(cell.value))
                    expected = (
                        "" if cell.value is None else f"{cell.value:.1f} ±\N{NO-BREAK SPACE}{cell.sd:.1f}"
                    )
                    assert shown.lstrip("−") == expected.lstrip("-")
                    compared += bool(value)
    assert compared > 50
    for row in costs.rows:
        by_title = dict(zip(((c.group, c.title) for c in costs.columns), row.cells))
        if row.labels[1] in rows and len(row.cells[0].raw) == 2:
            found = dict(zip(heads, rows[row.labels[1]]))
            assert found["Training (s)"][1] == [repr(by_title["seconds", "training"].value)]
            assert found["Kept (MB)"][1] == [repr(by_title["kept for later", "bytes (MB)"].value)]


def test_recipes_of_one_strategy_are_distinguished_and_equal_values_share_a_rank(tmp_path):
    for recipe in ("0a1b2c3d", "ffffffff"):
        make_run(tmp_path, "visa_8_1x4", "iuf", recipe_hash=recipe)
    make_run(tmp_path, "visa_8_1x4", "si", keep=0.5)
    text = write_report(tmp_path, tmp_path / "r.html", warn=lambda _: None).read_text()
    ((_, rows),) = cells_of(text)
    assert [row[0][0] for row in rows] == ["1", "1", "3"]
    assert [row[1][0] for row in rows] == ["IUF paper 0a1b2c3d", "IUF paper ffffffff", "UniAD + SI"]


def test_values_and_provenance(text, results):
    for run in find_runs(results)[0]:
        values = run.matrix("image").values
        for value in values[~np.isnan(values)]:
            assert f">{100 * value:.1f}</td>" in text
        assert run.info["dataset"]["fingerprint"] in text
        assert run.info["command"] in html.unescape(text)


def test_the_same_runs_give_the_same_bytes(results):
    one = write_report(results, results / "a.html", warn=lambda _: None).read_bytes()
    assert one == write_report(results, results / "b.html", warn=lambda _: None).read_bytes()


def test_what_is_wrong_is_in_the_report(results):
    damaged = make_run(results, "visa_11_1")
    (damaged / "metrics.csv").unlink()
    make_run(results, "visa_8_4", status="interrupted")
    warnings = []
    text = write_report(results, results / "r.html", warn=warnings.append).read_text()
    assert len(warnings) == 2
    assert "metrics.csv" in text and "is interrupted" in text


def test_no_runs(tmp_path):
    with pytest.raises(InputError, match="iufbench run"):
        write_report(tmp_path, tmp_path / "r.html")


def filtered(browser, everything):
    """Every choice of every filter, by keyboard, shows the rows that have it, and ``all`` shows all."""
    rows = (
        "return [...document.querySelectorAll('#overview-table tbody tr')]"
        ".filter(r => !r.hidden || arguments[1]).map(r => r.getAttribute('data-' + arguments[0]))"
    )
    counts = {}
    for name in FILTERS:
        values = browser.execute_script(rows, name, True)
        select = browser.find_element("name", name)
        choices = [o.get_attribute("value") for o in select.find_elements("tag name", "option")]
        assert choices == ["", *dict.fromkeys(choices[1:])] and set(choices[1:]) == set(values)
        counts[name] = len(choices) - 1
        browser.execute_script("arguments[0].focus()", select)
        for choice in [*choices[1:], ""]:
            select.send_keys("\ue015" if choice else "\ue011")  # down, and home at the end
            expected = [v for v in values if choice in ("", v)]
            assert browser.execute_script("return arguments[0].value", select) == choice
            assert browser.execute_script(rows, name, False) == expected
            status = browser.find_element("id", "overview-status").text
            assert status == f"{len(expected)} of {len(everything)} rows"
    return counts


# Tables that are wider than their place, with everything unfolded.
CUT = (
    "const folded = [...document.querySelectorAll('details:not([open])')];"
    "folded.forEach(d => { d.open = true; });"
    "const cut = [...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth)"
    ".map(s => s.getAttribute('aria-label'));"
    "folded.forEach(d => { d.open = false; });"
    "return cut;"
)


def test_in_a_browser(results, browser):
    """Sorting and filtering by keyboard, the definitions, a phone's width, and no message in the console."""
    several = make_run(results, "mvtec_14_1") / "metrics.csv"  # beside AUROC another metric to filter by
    head, *lines = several.read_text().splitlines(keepends=True)
    several.write_text("".join([head, *lines, *(line.replace("auroc", "ap") for line in lines)]))
    write_report(results, results / "report.html", warn=lambda text: pytest.fail(text))
    browser.set_window_size(1400, 900)
    browser.get((results / "report.html").as_uri())

    def visible():
        return browser.execute_script(
            "return [...document.querySelectorAll('#overview-table tbody tr')].filter(r => !r.hidden)"
            ".map(r => [r.dataset.level, r.dataset.kind, r.cells[6].dataset.value])"
        )

    assert browser.execute_script(
        "const first = document.querySelector('table'); return first.classList.contains('ranking')"
        " && first.offsetHeight > 0 && !document.getElementById('all-metrics').open"
    )
    assert browser.execute_script(CUT) == []
    ranking = "return [...document.querySelector('table.ranking').tBodies[0].rows].map(r => r.dataset.rank)"
    ranks = browser.execute_script(ranking)
    browser.find_element("css selector", "table.ranking th[aria-sort] button").send_keys("\ue007")
    assert browser.execute_script(ranking) == ranks[::-1]
    browser.find_element("css selector", "#all-metrics summary").send_keys("\ue007")
    everything = visible()
    assert f"{len(everything)} of {len(everything)} rows" in browser.page_source
    column = browser.find_elements("css selector", "#overview-table thead button")[6]
    column.send_keys("\ue007")
    values = [float(v) for _, _, v in visible() if v]
    assert values == sorted(values, reverse=True) and len(values) > 5
    column.send_keys("\ue007")
    rows = visible()
    values = [float(v) for _, _, v in rows if v]
    assert values == sorted(values)
    assert all(not v for _, _, v in rows[len(values) :])
    browser.find_element("name", "level").send_keys("pixel")
    assert {level for level, _, _ in visible()} == {"pixel"}
    browser.find_element("css selector", "#overview-filters input").click()
    assert {kind for _, kind, _ in visible()} == {"ours"}
    browser.find_element("css selector", "#overview-filters button").click()
    eventually(lambda: len(visible()) == len(everything))
    column = browser.find_elements("css selector", "#overview-table thead button")[0]
    column.send_keys(" ")  # back to names in ascending order, by the other key that presses a button
    assert (
        browser.execute_script("return document.querySelector('#overview-table th[aria-sort]').cellIndex")
        == 0
    )
    counts = filtered(browser, everything)
    assert counts["strategy"] > 5 and min(counts[n] for n in ("dataset", "protocol", "level", "metric")) > 1
    browser.find_element("name", "protocol").send_keys("elpv")
    browser.find_element("name", "level").send_keys("pixel")  # a grey-scale data set without masks
    assert visible() == []
    browser.find_element("css selector", "#overview-filters button").send_keys("\ue007")
    eventually(lambda: len(visible()) == len(everything))
    browser.find_element("css selector", "a[href='#def-fm']").send_keys("\ue007")
    shown = (
        "const top = document.getElementById('def-fm').getBoundingClientRect().top;"
        "return top >= 0 && top < innerHeight"
    )
    eventually(lambda: browser.execute_script(shown))
    link = browser.find_element("css selector", "#overview-table a[href^='#run-']")
    target = link.get_attribute("href").partition("#")[2]
    link.send_keys("\ue007")
    is_open = "return document.getElementById(decodeURIComponent(arguments[0])).open"
    eventually(lambda: browser.execute_script(is_open, target))
    browser.set_window_size(500, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []
