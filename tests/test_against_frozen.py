"""Comparison with the frozen model: plasticity, retention and the paired test, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from fake_runs import experiences_of, make_run
from scipy import stats

from iufbench.reporting.against_frozen import against_frozen
from iufbench.reporting.compare import compare
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.store import find_runs
from iufbench.reporting.tables.build import build_tables
from iufbench.reporting.tables.plane import points
from iufbench.reporting.tables.render import render

PROTOCOL = "visa_8_1x4"
AFTER = np.repeat(np.arange(5), [len(e) for e in experiences_of(PROTOCOL)])


def stream(base, new, drop=0.0, unseen=np.nan):
    """R: base objects at ``base``, new ones at ``new`` when learnt; all lose ``drop`` at every later step."""
    steps = np.arange(5)[:, None]
    start = np.where(AFTER == 0, base, new)
    return np.where(steps >= AFTER, start - drop * (steps - AFTER), unseen)


@pytest.fixture
def results(tmp_path):
    """Frozen: new objects at 0.5. Learner: 0.8 and nothing lost. Loser: 0.8, losing 0.1 per step."""
    for seed in (0, 1):
        make_run(tmp_path, PROTOCOL, "frozen", seed, image=stream(0.9, 0.5), masks=False)
        make_run(tmp_path, PROTOCOL, "learner", seed, image=stream(0.9, 0.8), masks=False)
        make_run(tmp_path, PROTOCOL, "loser", seed, image=stream(0.9, 0.8, 0.1), masks=False)
    make_run(tmp_path, PROTOCOL, "joint", 0, joint=True, image=[[0.92] * 12], masks=False)
    make_run(tmp_path, PROTOCOL, "cumulative", 0, image=stream(0.9, 0.85), masks=False)
    return tmp_path


def by_strategy(results):
    return {g.strategy: g for g in group_runs(find_runs(results)[0])}


def test_plasticity_retention_and_intransigence_across_runs(results):
    groups = by_strategy(results)
    assert groups["frozen"].values("image", "auroc", "plasticity") == pytest.approx([0, 0])
    assert groups["learner"].values("image", "auroc", "plasticity") == pytest.approx([0.3, 0.3])
    assert groups["learner"].values("image", "auroc", "retention") == pytest.approx([0, 0])
    assert groups["joint"].values("image", "auroc", "plasticity") == pytest.approx([0.42])
    lost = np.mean([0.1 * (4 - t) for t in AFTER if t < 4])
    assert groups["loser"].values("image", "auroc", "retention") == pytest.approx([-lost, -lost])
    first, second = groups["learner"].values("image", "auroc", "intransigence")
    assert first == pytest.approx(4 * 0.05 / 12) and np.isnan(second)  # cumulative ran with seed 0 only


def test_own_zero_shot_values_go_before_those_of_frozen(results):
    make_run(results, PROTOCOL, "learner", 2, image=stream(0.9, 0.8, unseen=0.6), masks=False)
    make_run(results, PROTOCOL, "frozen", 2, image=stream(0.9, 0.5), masks=False)
    assert by_strategy(results)["learner"].values("image", "auroc", "plasticity")[2] == pytest.approx(0.2)


def test_without_frozen_and_unseen_objects_plasticity_is_missing(tmp_path):
    make_run(tmp_path, PROTOCOL, "learner", image=stream(0.9, 0.8), masks=False)
    (group,) = group_runs(find_runs(tmp_path)[0])
    (point,) = points([group], "image")
    assert point.zero_shot == "missing" and not point.complete
    (table,) = [t for t in build_tables([*group.runs], published()) if t.name.startswith("learning_")]
    assert "--eval-unseen" in table.caption


@pytest.mark.parametrize("change", [{"preset": "quick"}, {"image_size": 256}, {"scores_version": 7}])
def test_a_frozen_run_under_other_conditions_is_no_reference(tmp_path, change):
    make_run(tmp_path, PROTOCOL, "frozen", image=stream(0.9, 0.5), masks=False)
    make_run(tmp_path, PROTOCOL, "learner", image=stream(0.9, 0.8), masks=False, **change)
    assert by_strategy(tmp_path)["learner"].references == {}


def test_the_paired_test_over_objects(results):
    groups = by_strategy(results)
    assert against_frozen(groups["frozen"], "image") is None
    better = against_frozen(groups["learner"], "image")
    # Eight base objects are equal, four new ones gain: 1 of 16 sign patterns of the four reaches the sum.
    assert better.gain == pytest.approx(4 * 0.3 / 12) and better.p_value == pytest.approx(1 / 16)
    assert better.verdict == "not better than frozen" and (better.objects, better.seeds) == (12, 2)
    worse = against_frozen(groups["loser"], "image")
    assert worse.gain < 0 and worse.verdict == "not better than frozen"


def test_five_new_objects_that_gain_are_enough(tmp_path):
    """The p-value is scipy's Wilcoxon one for equal differences: 1 / 2**n of n objects that differ."""
    values = np.array([[0.9] * 7 + [np.nan] * 5, [0.9] * 7 + [0.8] * 5])
    make_run(tmp_path, "visa_7_5", "learner", image=values, masks=False)
    make_run(tmp_path, "visa_7_5", "frozen", image=np.where(values == 0.8, 0.5, values), masks=False)
    found = against_frozen(by_strategy(tmp_path)["learner"], "image")
    expected = stats.wilcoxon([0.3, 0.31, 0.32, 0.33, 0.34], alternative="greater", method="exact").pvalue
    assert found.p_value == pytest.approx(expected) == pytest.approx(1 / 32)
    assert found.verdict == "better than frozen"


def test_too_few_objects_are_reported_as_too_few(tmp_path):
    make_run(tmp_path, "elpv_1_1", "frozen", image=[[0.9, np.nan], [0.9, 0.5]], masks=False)
    make_run(tmp_path, "elpv_1_1", "learner", image=[[0.9, np.nan], [0.9, 0.8]], masks=False)
    found = against_frozen(by_strategy(tmp_path)["learner"], "image")
    assert found.verdict == "too few objects to tell from frozen"


def test_compare_and_tables_say_it(results):
    text = render(compare(results, "loser", "learner"), "md")
    assert text.count("image level: not better than frozen") == 2
    tables = {t.name: t for t in build_tables(find_runs(results)[0], published())}
    table = tables["learning_visa_visa_8_1x4"]
    place = [c.title for c in table.columns].index("against frozen (ACC-final)")
    shown = {r.labels[1]: r.cells[place].text for r in table.rows}
    assert shown["loser"].startswith("not better than frozen (-") and shown["frozen"] == ""
    assert [r.labels[1] for r in table.rows][:3] == ["cumulative", "frozen", "joint"]  # bounds come first
