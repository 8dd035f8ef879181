"""Tables and figures over objects and seeds: numbers that follow from the runs, intervals with two seeds."""

from __future__ import annotations

import numpy as np
import pytest
from fake_runs import fake_matrix, make_run
from scipy import stats

from iufbench.reporting.figures.drawing import styles
from iufbench.reporting.figures.profiles import band, profile_figure
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.standings import standings
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.aggregates import aggregate_tables

KEEP = {"iuf": 0.9, "finetune": 0.5, "frozen": 1.0}


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    results = tmp_path_factory.mktemp("aggregates")
    for strategy, keep in KEEP.items():
        for seed in (0, 1):
            image = fake_matrix("visa_11_1", "image", keep, seed)
            make_run(results, "visa_11_1", strategy, seed, image=image, masks=False)
    make_run(results, "visa_11_1", "replay", 0, keep=0.7, masks=False)
    broken = fake_matrix("visa_11_1", "image", 0.7)
    broken[-1, 3] = np.nan
    make_run(results, "visa_11_1", "si", 0, image=broken, masks=False)
    make_run(results, "visa_11_1", "ewc", 0, masks=False, preset="quick")
    return group_runs(find_runs(results)[0])


def last(group):
    return np.array([run.matrix("image").values[-1] for run in group.runs])


def test_the_table_has_the_numbers_of_the_runs_and_their_intervals(groups):
    (table,) = aggregate_tables(groups, published(), {})
    assert table.name == "aggregates_visa_visa_11_1"
    titles = [c.title for c in table.columns]
    rows = {row.labels[1]: row.cells for row in table.rows}
    of = {g.title: last(g) for g in groups}
    assert "UniAD + SI" not in rows  # one object without a value
    assert len(rows) == 5
    means = {name: of[name].mean() for name in rows}
    for name, cells in rows.items():
        assert cells[0].value == 1 + sum(np.round(m, 3) > np.round(means[name], 3) for m in means.values())
        value = 100 * stats.trim_mean(of[name].ravel(), 0.25)
        assert cells[titles.index("IQM ↑")].value == pytest.approx(value)
        several = len(of[name]) > 1
        assert bool(cells[1].text) == bool(cells[4].text) == several
        if several:
            low, high = map(float, cells[4].text.strip("[]").split(", "))
            assert low - 0.05 <= value <= high + 0.05
        found = cells[titles.index("P(> frozen) ↑")].value
        if name in ("frozen", "UniAD + EWC"):  # itself, and another preset
            assert found is None
        else:
            u = [stats.mannwhitneyu(of[name][:, o], of["frozen"][:, o]).statistic for o in range(12)]
            assert found == pytest.approx(np.mean(u) / (len(of[name]) * 2))


def test_nan_takes_a_strategy_out_of_the_ranking(groups):
    found = {s.group.strategy: s for s in standings(groups, "image")}
    assert found["si"].values is None and found["si"].rank is None and np.isnan(found["si"].iqm.value)
    assert list(found)[-1] == "si"


def test_the_lines_of_a_profile_count_objects_and_seeds(groups):
    figure = profile_figure(groups, published(), "image")
    (axes,) = figure.axes
    look = styles(groups)
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {g.title for g in groups} - {"UniAD + SI"}
    for group in groups:
        if group.strategy == "si":
            continue
        line, values = lines[group.title], 100 * last(group)
        for x, y in list(zip(*line.get_data()))[::40]:
            assert y == pytest.approx(100 * (values > x).mean())
        assert (line.get_color(), line.get_marker()) == tuple(look[group.strategy])
    assert len(axes.collections) == 3  # bands of those with two seeds
    low, high = band(np.array([[0.2, 0.4], [0.6, 0.4]]), np.array([0.0, 0.3, 0.9]))
    assert low.tolist() == [1, 0.5, 0] and high.tolist() == [1, 1, 0]
