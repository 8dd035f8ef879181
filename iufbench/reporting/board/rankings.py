"""The rankings of a board: one per protocol and metric, and one over all protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from iufbench.metrics.aggregate import Estimate, borda
from iufbench.metrics.summaries import DEFINITIONS
from iufbench.reporting.groups import Group, setting
from iufbench.reporting.literature import Published
from iufbench.reporting.standings import DECIMALS, RIVALS, Standing, order_of, standings, streams
from iufbench.reporting.tables.details import cost
from iufbench.reporting.tables.render import MINUS, cell_text
from iufbench.reporting.tables.results import METRIC_TITLES, protocol_title
from iufbench.reporting.tables.table import measured

RANKED = (("image", "auroc"), ("image", "ap"), ("pixel", "auroc"), ("pixel", "aupro_30"), ("pixel", "ap"))
SUMMARIES = ("acc", "fm_final")
COSTS = (("Training (s)", "train_seconds", "seconds", "train", 1.0, 0), ("Kept (MB)", "bytes_kept", "costs",
          "bytes_kept", 1e-6, 1))  # fmt: skip


@dataclass(frozen=True)
class Column:
    """``definition`` is the name of one on the page of definitions."""

    title: str
    definition: str
    higher_is_better: bool


@dataclass(frozen=True)
class Value:
    """A cell: its text and sort key (None: not measured)."""

    text: str = ""
    key: float | None = None


@dataclass(frozen=True)
class Place:
    """A row. ``bar``: low end, value and high end of the IQM on the scale of the ranking, in percent."""

    standing: Standing
    label: str
    cells: tuple[Value, ...]
    bar: tuple[float, float, float] | None

    @property
    def group(self) -> Group:
        return self.standing.group

    @property
    def origin(self) -> str:
        return "external" if self.group.record.external else "trained here"


@dataclass(frozen=True)
class Ranking:
    """Strategies on one protocol by ACC-final of one metric, best first."""

    id: str
    title: str
    dataset: str
    protocol: str
    synthetic: bool
    metric: str
    columns: tuple[Column, ...]
    places: tuple[Place, ...]
    scale: tuple[float, float]


def rankings(groups: Sequence[Group], published: Published) -> list[Ranking]:
    """All rankings, in the order of the groups, without metrics that no run has."""
    found = []
    for number, members in enumerate(streams(groups)):
        for level, metric in RANKED:
            if any(metric in g.runs[0].names(level) for g in members):
                found.append(
                    _ranking(f"ranking-{number}-{level}-{metric}", members, level, metric, published)
                )
    return _told_apart(found)


def _ranking(name: str, groups: Sequence[Group], level: str, metric: str, published: Published) -> Ranking:
    ranked = standings(groups, level, metric)
    ends = [100 * x for s in ranked for x in s.iqm if not np.isnan(x)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 100.0)
    scale = (max(0.0, np.floor(low / 10) * 10), min(100.0, np.ceil(high / 10 + 1e-9) * 10))
    rivals = [name for name in RIVALS if any(name in s.better for s in ranked)]
    columns = [
        Column("ACC-final", "acc_final", True),
        Column("IQM", "iqm", True),
        *(Column(f"P(> {n})", "probability_of_improvement", True) for n in rivals),
        *(Column(DEFINITIONS[s].title, s, DEFINITIONS[s].higher_is_better) for s in SUMMARIES),
        *(Column(title, definition, False) for title, definition, *_ in COSTS),
    ]
    titles = [s.group.title for s in ranked]
    places = []
    for found in ranked:
        group = found.group
        recipe = f"{group.preset} {group.recipe_hash}".strip() if titles.count(group.title) > 1 else ""
        cells = [
            _mean(group, level, metric, "acc_final"),
            estimate_value(found.iqm, 100, 1),
            *(estimate_value(found.better[n], 1, 2) if n in found.better else Value() for n in rivals),
            *(_mean(group, level, metric, s) for s in SUMMARIES),
        ]
        for _, _, part, key, unit, decimals in COSTS:
            spent = measured([cost(part, key)(run) for run in group.runs], unit, decimals)
            cells.append(Value("" if spent.value is None else f"{spent.value:,.{decimals}f}", spent.value))
        label = f"{group.title} {recipe}".strip()
        places.append(Place(found, label, tuple(cells), _bar(found.iqm, scale)))
    info = groups[0].record.dataset
    protocol = protocol_title(groups[0].protocol, groups, published)
    return Ranking(
        id=name,
        title=f"{groups[0].dataset_title}, {protocol}",
        dataset=groups[0].dataset_title,
        protocol=protocol,
        synthetic=info.synthetic,
        metric=f"{level} {METRIC_TITLES.get(metric, metric)}",
        columns=tuple(columns),
        places=tuple(places),
        scale=scale,
    )


def _told_apart(found: Sequence[Ranking]) -> list[Ranking]:
    """The rankings, those of one title and metric with the experiences in which they differ."""
    keys = [(r.title, r.metric) for r in found]
    result = []
    for key, ranking in zip(keys, found):
        if keys.count(key) > 1:
            orders = [order_of(p.group) for p in ranking.places if not p.group.joint]
            text = ", ".join(
                "+".join(objects) for objects in (orders or [order_of(ranking.places[0].group)])[0]
            )
            ranking = replace(ranking, title=f"{ranking.title}: {text}")
        result.append(ranking)
    return result


def estimate_value(found: Estimate, unit: float, decimals: int) -> Value:
    """``75.7 [75.1, 76.2]``; the value alone without an interval, nothing without a value."""
    if np.isnan(found.value):
        return Value()
    value, low, high = (f"{unit * x:.{decimals}f}" for x in found)
    return Value(value if np.isnan(found.low) else f"{value} [{low}, {high}]", unit * found.value)


def _mean(group: Group, level: str, metric: str, summary: str) -> Value:
    cell = measured(group.values(level, metric, summary), 100)
    if cell.value is None:
        return Value()
    spread = "" if cell.sd is None else f" ±\N{NO-BREAK SPACE}{cell.sd:.1f}"
    return Value(cell_text(cell, False).replace("-", MINUS) + spread, cell.value)


def _bar(found: Estimate, scale: tuple[float, float]) -> tuple[float, float, float] | None:
    if np.isnan(found.value) or scale[1] <= scale[0]:
        return None
    low, high = (found.value if np.isnan(x) else x for x in (found.low, found.high))
    a, b, c = (100 * (100 * x - scale[0]) / (scale[1] - scale[0]) for x in (low, found.value, high))
    return round(a, 2), round(b, 2), round(c, 2)


# ---- over protocols ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overall:
    """A strategy over all protocols: its Borda count, and ACC-final in percent on each (None: not run)."""

    rank: int
    label: str
    points: float
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Borda:
    """A ranking over protocols by image AUROC; synthetic and real data never share one."""

    synthetic: bool
    protocols: tuple[Ranking, ...]
    rows: tuple[Overall, ...]


def over_protocols(found: Sequence[Ranking]) -> list[Borda]:
    """Borda rankings, for real and for synthetic data with two protocols or more of two strategies each.

    A strategy may have one recipe per protocol, as in published schedules: its settings must agree. If a
    protocol has two recipes with the same settings, recipes are listed separately.
    """
    metric = f"{RANKED[0][0]} {METRIC_TITLES[RANKED[0][1]]}"
    made = []
    for synthetic in (False, True):
        chosen = [r for r in found if r.synthetic == synthetic and r.metric == metric]
        chosen = [r for r in chosen if sum(p.standing.rank is not None for p in r.places) > 1]
        if len(chosen) > 1:
            made.append(Borda(synthetic, tuple(chosen), _overall(chosen)))
    return made


def _overall(chosen: Sequence[Ranking]) -> tuple[Overall, ...]:
    ranked = [[p for p in r.places if p.standing.rank is not None] for r in chosen]
    keys = [[setting(p.group.runs[0]) for p in places] for places in ranked]
    twice = {key for found in keys for key in found if found.count(key) > 1}
    labels: dict[tuple[object, ...], str] = {}
    values: dict[tuple[object, ...], list[float]] = {}
    for k, places in enumerate(ranked):
        for place in places:
            group = place.group
            key: tuple[object, ...] = setting(group.runs[0])
            if key in twice:
                key = (*key, group.recipe_hash)
            recipe = f" {group.preset} {group.recipe_hash}" if key[:-1] in twice else ""
            labels.setdefault(key, group.title + recipe)
            values.setdefault(key, [np.nan] * len(chosen))[k] = round(place.standing.mean, DECIMALS)
    names = list(labels.values())
    presets = {
        key: f" ({key[2]})" if names.count(label) > 1 and key[2] else "" for key, label in labels.items()
    }
    points = borda(list(values.values()))
    order = sorted(zip(points.tolist(), labels), key=lambda item: -item[0])
    best = [p for p, _ in order]
    return tuple(
        Overall(
            best.index(p) + 1,
            labels[key] + presets[key],
            p,
            tuple(None if np.isnan(v) else 100 * v for v in values[key]),
        )
        for p, key in order
    )
