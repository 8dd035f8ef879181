"""The board: rankings that follow from the runs, pages that link everything, and nothing private on them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner
from fake_runs import fake_matrix, make_run
from pages import Page, eventually
from scipy import stats

import iufbench as ib
from iufbench.cli.main import main
from iufbench.reporting.board import build
from iufbench.reporting.board.public import without_paths
from iufbench.reporting.store import find_runs
from iufbench.support.errors import InputError, RunError

KEEP = {"iuf": 0.95, "frozen": 1.0, "finetune": 0.4, "replay": 0.8}
SECRET = "/home/alice/Acme Corp"
PRIVATE = {
    "request": {"data_root": f"{SECRET}/visa", "lists": [f"{SECRET}/a.txt"], "seed": 1},
    "command": f"iufbench score '{SECRET}/my scores.csv' --data-root '{SECRET}/visa' --set w={SECRET[:11]}/w",
    "warnings": [f"masks from {SECRET}/it's here/masks", r"C:\Users\alice\x.png was read twice", "~/alice/y"],
    "environment": {"variables": {"IUFBENCH_DATA": SECRET}, "git": {"commit": f"{SECRET}/g"}},
    "recipe": {"backbone": {"weights": f"{SECRET}/b4.pth"}, "note": "file:///home/alice/z"},
    "later": {"where": SECRET},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two real protocols, a synthetic one, an external run, and runs that must stand apart."""
    folder = tmp_path_factory.mktemp("board")
    for strategy, keep in KEEP.items():
        for seed in (0, 1):
            image = fake_matrix("visa_8_1x4", "image", keep, seed)
            image[:, 8:] -= 0.2 * (strategy == "frozen")
            make_run(folder, "visa_8_1x4", strategy, seed, image=image)
            make_run(folder, "visa_8_1x4", strategy, seed, keep=keep, synthetic=True)
    for strategy in ("iuf", "finetune"):
        make_run(folder, "mvtec_14_1", strategy, 0, keep=KEEP[strategy], masks=False)
    make_run(folder, "visa_8_1x4", "joint", joint=True)
    submission = {"scores_sha256": "ab" * 32, "link": "javascript:alert(1)"}
    external = {"kind": "external", "submission": submission, **PRIVATE}
    make_run(
        folder, "visa_8_1x4", "external-<b>Mine", masks=False, scores=True, preset="external", **external
    )
    make_run(folder, "visa_8_1x4", "iuf", 7, scores_version=9)
    return folder


@pytest.fixture(scope="module")
def site(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "board"
    return build.write_board(results, out, warn=lambda _: None).parent


@pytest.fixture(scope="module")
def rankings(site):
    return json.loads((site / "board.json").read_text())


def places_of(rankings, title, metric="image AUROC"):
    (found,) = [r for r in rankings["rankings"] if r["title"] == title and r["metric"] == metric]
    return {place["strategy"]: place for place in found["places"]}


VISA = "VisA (scores version 0), 8-1 with 4 Steps"


def test_ranks_and_intervals_follow_from_the_runs(results, rankings):
    runs = [r for r in find_runs(results)[0] if r.id.startswith("visa/") and r.record.scores_version == 0]
    last = {}
    for run in runs:
        last.setdefault(run.record.strategy.name, []).append(run.matrix("image").values[-1])
    places = places_of(rankings, VISA)
    assert (
        set(places) == {"IUF", "frozen", "finetune", "Replay", "joint", "<b>Mine (external)"} - {""} or places
    )
    names = {"IUF": "iuf", "frozen": "frozen", "finetune": "finetune", "Replay": "replay"}
    competing = {n: np.mean(v) for n, v in last.items() if n != "joint"}
    for title, name in names.items():
        place, values = places[title], np.array(last[name])
        assert place["rank"] == 1 + sum(m > competing[name] for m in competing.values())
        assert place["rank_interval"][0] <= place["rank"] <= place["rank_interval"][1]
        assert place["acc_final"] == pytest.approx(values.mean())
        value, low, high = place["iqm"]
        assert value == pytest.approx(stats.trim_mean(values.ravel(), 0.25)) and low <= value <= high
        for rival, (p, *_) in place["probability_of_improvement"].items():
            other = np.array(last[rival])
            u = [stats.mannwhitneyu(values[:, o], other[:, o]).statistic / 4 for o in range(12)]
            assert p == pytest.approx(np.mean(u))
        assert set(place["probability_of_improvement"]) == {"frozen", "finetune"} - {name}
    assert places["joint"]["rank"] is None
    (mine,) = (p for name, p in places.items() if p["external"])
    assert mine["rank_interval"] is None and mine["iqm"][1] is None  # one seed
    assert set(mine["probability_of_improvement"]) == {"frozen", "finetune"}


def test_what_must_not_be_compared_has_rankings_of_its_own(rankings):
    titles = [r["title"] for r in rankings["rankings"] if r["metric"] == "image AUROC"]
    assert len(titles) == len(set(titles)) == 4
    assert list(places_of(rankings, "VisA (scores version 9), 8-1 with 4 Steps")) == ["IUF"]
    for ranking in rankings["rankings"]:
        ids = [run for place in ranking["places"] for run in place["runs"]]
        assert {"synthetic" in run for run in ids} == {ranking["synthetic"]}


def test_another_order_of_objects_under_the_same_name_is_distinguished(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", "iuf", masks=False)
    other = make_run(tmp_path, "elpv_1_1", "replay", masks=False)
    text = (other / "run.json").read_text().replace('"mono"', '"@"').replace('"poly"', '"mono"')
    (other / "run.json").write_text(text.replace('"@"', '"poly"'))
    rows = (
        (other / "metrics.csv").read_text().replace("mono", "@").replace("poly", "mono").replace("@", "poly")
    )
    (other / "metrics.csv").write_text(rows)
    build.write_board(tmp_path, tmp_path / "site", warn=lambda _: None)
    found = json.loads((tmp_path / "site/board.json").read_text())["rankings"]
    assert [[p["strategy"] for p in r["places"]] for r in found] == [["Replay"], ["IUF"]]
    assert [r["title"].rpartition(": ")[2] for r in found] == ["poly, mono", "mono, poly"]
    assert path.is_dir()


def test_borda_over_the_real_protocols(rankings):
    (borda,) = rankings["borda"]  # one synthetic protocol alone has none
    assert not borda["synthetic"] and len(borda["protocols"]) == 2
    first, second = (places_of(rankings, title) for title in borda["protocols"])
    points = {p["strategy"]: p["points"] for p in borda["places"]}
    for name in ("IUF", "finetune", "Replay"):
        expected = 0.0
        for places in (first, second):
            own = places[name]["acc_final"] if name in places else -np.inf
            others = [places[n]["acc_final"] if n in places else -np.inf for n in points if n != name]
            own, others = np.round(own, 3), np.round(others, 3)
            expected += (own > others).sum() + 0.5 * (own == others).sum()
        assert points[name] == expected


def pages(site):
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def test_every_link_leads_somewhere(site):
    found = pages(site)
    for path, page in found.items():
        assert len(set(page.ids)) == len(page.ids)
        for link in page.links:
            assert not link.startswith(("http", "javascript", "/")), link
            file, _, anchor = link.partition("#")
            target = (path.parent / unquote(file)).resolve() if file else path
            assert target.is_file(), link
            assert not anchor or anchor in found[target].ids, link


def test_every_number_is_one_click_from_its_definition_its_run_and_its_hash(site, results):
    index = (site / "index.html").read_text()
    tables = re.findall(r'<section class="ranking" id.*?</section>', index, re.S)
    assert len(tables) == 7
    for table in tables:
        assert len(re.findall(r'<th scope="col".*?definitions.html#def-', table)) >= 6
        for row in re.findall(r"<tr data-family.*?</tr>", table, re.S):
            assert re.search(r'href="runs/\w+/index.html"', row)
            assert re.search(r'href="runs/\w+/index.html#hashes">[0-9a-f]{8}<', row)
            assert ("synthetic</span>" in row) == ('data-data="synthetic"' in table)
            assert ("external</span>" in row) == ('data-origin="external"' in row)
    for run in find_runs(results)[0]:
        folder = site / build.page_of(run)
        page = (folder / "index.html").read_text()
        digest = hashlib.sha256((run.path / "metrics.csv").read_bytes()).hexdigest()
        assert (
            digest in page
            and (folder / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()
        )
        assert ("Synthetic data" in page) == run.synthetic
        assert ib.load_run(folder).metrics.equals(run.metrics)


def test_published_values_are_not_ranked(site):
    index = (site / "index.html").read_text()
    ranked, _, rest = index.partition('<section id="published">')
    assert "published" not in re.sub(r'href="#published">.*?<', "", ranked[ranked.index("<body") :])
    assert rest.count('<tr class="published">') > 5


def test_nothing_private_is_published(site, results):
    words = (b"alice", b"Acme", str(results).encode(), str(Path.home()).encode() + b"/", b"IUFBENCH_DATA")
    files = [path for path in site.rglob("*") if path.is_file()]
    assert len(files) > 60
    for path in files:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        assert not [word for word in words if word in data], path
    (page,) = (p.read_text() for p in site.rglob("index.html") if "submitted scores" in p.read_text())
    assert "…/masks" in page and "javascript:" not in page and "<b>Mine" not in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("and/or 12 ms/image, 1/2", "and/or 12 ms/image, 1/2"),
        ("https://example.org/a?b=/c", "https://example.org/a?b=/c"),
        ("--out=../x/y (/z)", "--out=…/y (…/z)"),
        (r"\\server\share\file.txt", "…/file.txt"),
        ("visa/visa_8_1x4/iuf/0a1b2c3d/seed0", "visa/visa_8_1x4/iuf/0a1b2c3d/seed0"),
    ],
)
def test_paths_in_texts(text, expected):
    assert without_paths(text) == expected


def test_images_named_by_their_place_are_not_published(tmp_path):
    path = make_run(tmp_path, "elpv_1_1", "iuf", masks=False, scores=True)
    rows = gzip.decompress((path / "scores.csv.gz").read_bytes()).replace(b"mono/good", b"/home/alice/good")
    (path / "scores.csv.gz").write_bytes(gzip.compress(rows))
    index = build.write_board(tmp_path, tmp_path / "site", warn=lambda _: None)
    assert not list(index.parent.rglob("scores.csv.gz"))
    (page,) = index.parent.glob("runs/*/index.html")
    assert "is not published: its image names are paths on a machine" in page.read_text()


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_board_is_replaced_as_a_whole(tmp_path, monkeypatch):
    results, site = tmp_path / "results", tmp_path / "site/board"
    make_run(results, "elpv_1_1", "iuf", masks=False)
    before = content(build.write_board(results, site, warn=lambda _: None).parent)
    assert content(build.write_board(results, site, warn=lambda _: None).parent) == before  # the same bytes
    monkeypatch.setattr(build, "_as_json", lambda *a: (_ for _ in ()).throw(RunError("disk full")))
    with pytest.raises(RunError):
        build.write_board(results, site, warn=lambda _: None)
    assert content(site) == before and [p.name for p in site.parent.iterdir()] == ["board"]


def test_other_folders_are_refused(results, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    done = CliRunner().invoke(main, ["board", "build", str(results), "--out", str(tmp_path / "mine")])
    assert done.exit_code == 2 and "exists and is not a board" in done.stderr
    with pytest.raises(InputError, match="where runs are stored"):
        ib.board_build(results, results / "runs/board")
    done = CliRunner().invoke(main, ["board", "build", str(tmp_path)])
    assert done.exit_code == 2 and "no complete run" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_in_a_browser(site, browser):
    """Filters by keyboard, links, a phone's width, and no message in the console."""
    index = (site / "index.html").as_uri()
    browser.set_window_size(1400, 900)
    browser.get(index)
    shown = (
        "return [...document.querySelectorAll('#rankings section.ranking')].filter(s => s.offsetHeight)"
        ".map(s => [s.dataset.metric, s.dataset.data, [...s.querySelectorAll('tbody tr')]"
        ".filter(r => r.offsetHeight).length])"
    )
    assert {metric for metric, *_ in browser.execute_script(shown)} == {"image AUROC"}
    assert {data for _, data, _ in browser.execute_script(shown)} == {"real", "synthetic"}
    assert browser.execute_script("return [...document.querySelectorAll('.scroll')]"
                                  ".every(s => s.scrollWidth <= s.clientWidth)")  # fmt: skip
    browser.find_element("name", "data").send_keys("syn")
    assert {data for _, data, _ in browser.execute_script(shown)} == {"synthetic"}
    browser.find_element("name", "origin").send_keys("ext")
    assert browser.execute_script(shown) == []
    assert browser.find_element("id", "board-nothing").is_displayed()
    browser.find_element("css selector", "#board-filters button").send_keys("\ue007")
    eventually(lambda: len(browser.execute_script(shown)) == 4)
    browser.find_element("name", "origin").send_keys("ext")
    assert [rows for *_, rows in browser.execute_script(shown)] == [1]
    assert "1 row in 1 ranking" in browser.find_element("id", "board-status").text
    browser.find_element("css selector", "#board-filters button").send_keys("\ue007")
    eventually(lambda: len(browser.execute_script(shown)) == 4)
    browser.find_element("name", "metric").send_keys("pixel AU")
    assert {metric for metric, *_ in browser.execute_script(shown)} == {"pixel AUROC"}
    table = "[...document.querySelectorAll('#rankings table')].find(t => t.offsetHeight && t.rows[4])"
    order = f"return [...{table}.tBodies[0].rows].map(r => r.cells[0].textContent)"
    browser.get(index)
    first = browser.execute_script(order)
    browser.execute_script(f"return {table}").find_element("css selector", "th button").send_keys("\ue007")
    assert browser.execute_script(order) == [*first[-1::-1]]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    run = next(site.glob("runs/*/index.html"))
    for page in (site / "index.html", site / "definitions.html", run):
        browser.get(page.as_uri())
        assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [
            390,
            390,
        ]
    browser.get(index)
    label = browser.find_element("css selector", "section.ranking:not([hidden]) td.value a.label")
    assert label.is_displayed()  # definitions stay one tap away without the heads of columns
    label.send_keys("\ue007")
    eventually(lambda: "definitions.html#def-" in browser.current_url)
    browser.back()
    browser.find_element("css selector", "section.ranking:not([hidden]) td.runs a.hash").send_keys("\ue007")
    eventually(lambda: browser.current_url.endswith("index.html#hashes"))
    assert browser.find_element("id", "hashes").is_displayed()
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []
