"""The rules of the search protocol: selection, growth of the grid, seeds."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "perf"))

import tune


class Curve(tune.Bench):
    """Measures a known curve: ACC-final peaks at 0.3, plasticity falls with the strength."""

    def __init__(self, peak: float = 0.3, plasticity: float = 0.4) -> None:
        super().__init__(Path("nowhere"))
        self.peak, self.plasticity, self.calls = peak, plasticity, []

    def measured(self, strategy, settings, seed):
        self.calls.append((strategy, settings, seed))
        value = float(dict(settings).get("x", 0))
        found = dict.fromkeys(tune.MEASURED, 0.0)
        distance = abs(math.log10(max(value, 1e-9) / self.peak))
        found["image_acc_final"] = 0.9 - 0.1 * distance + 0.001 * seed
        found["image_plasticity"] = self.plasticity / (1 + value)
        return found


def point(acc_final: float, plasticity: float) -> tune.Point:
    values = {"image_acc_final": acc_final, "image_plasticity": plasticity}
    return tune.Point((("x", f"{acc_final}"),), {0: values})


def test_a_rigid_value_is_not_chosen_however_high_its_acc_final():
    rigid, plastic, forgetful = point(0.80, 0.01), point(0.75, 0.3), point(0.5, 0.4)
    assert tune.choose([rigid, plastic, forgetful], 0.2, (0,)) is plastic


def test_where_none_is_plastic_enough_the_most_plastic_of_the_best_is():
    best, near, far = point(0.80, 0.01), point(0.785, 0.05), point(0.7, 0.15)
    assert tune.choose([best, near, far], 0.2, (0,)) is near


def test_a_grid_grows_until_its_best_value_is_inside_and_is_then_refined():
    bench = Curve(peak=0.3)
    grid = tune.strength("x", 1e-4, 1e-3, 1e-2)
    points = tune.descend(bench, "toy", (), [grid], needed=0.0)
    assert [dict(p.settings)["x"] for p in points] == ["0.0001", "0.001", "0.01", "0.03", "0.1", "0.3", "1"]
    assert dict(tune.choose(points, 0.0, (0,)).settings)["x"] == "0.3"
    assert {seed for _, _, seed in bench.calls} == {0}  # screened on the first seed


def test_a_grid_does_not_grow_for_ever():
    points = tune.descend(Curve(peak=1e6), "toy", (), [tune.strength("x", 1, 10)], needed=0.0)
    assert max(float(dict(p.settings)["x"]) for p in points) == 10 * 10**tune.EXTENSIONS


@pytest.mark.parametrize("screen_only", [False, True])
def test_finalists_are_run_with_every_seed(monkeypatch, screen_only):
    bench = Curve()
    monkeypatch.setitem(tune.SEARCHES, "toy", tune.single("x", 1e-2, 0.1, 1, 10))
    rows = tune.search(bench, "toy", screen_only)
    chosen = [row for row in rows if row["chosen"]]
    assert len(chosen) == 1 and chosen[0]["settings"] == "x=0.3" and chosen[0]["feasible"] == "yes"
    finals = [row for row in rows if row["stage"] == "final"]
    assert len(finals) == (0 if screen_only else tune.FINALISTS)
    assert all(row["seeds"] == "0 1 2" for row in finals)
    assert {row["seeds"] for row in rows if row["stage"] == "screen"} == {"0"}
