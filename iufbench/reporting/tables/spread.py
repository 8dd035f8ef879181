"""How much results vary over seeds and over orders of the objects, with every individual value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iufbench.metrics.statistics import spread
from iufbench.reporting.groups import Group, setting
from iufbench.reporting.literature import Published
from iufbench.reporting.tables.render import MINUS
from iufbench.reporting.tables.results import LEVEL_TITLES, Notes, definitions, heading, protocol_title
from iufbench.reporting.tables.table import Cell, Column, Row, Table, footnote_marks, measured

SUMMARIES = ("acc", "acc_final", "fm", "fm_final", "new_object")


def order_of(protocol: str) -> str:
    """``own`` for a data set's own order of objects, else the part of the protocol's id after the +."""
    return protocol.partition("+")[2].removeprefix("order") or "own"


def order_families(groups: Sequence[Group]) -> list[tuple[Group, ...]]:
    """Groups that differ only in the order of the objects: at least two orders, in given order."""
    found: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        base = group.protocol.partition("+")[0]
        fingerprint = group.record.dataset.fingerprint
        run = group.runs[0]
        key = (
            group.dataset,
            base,
            fingerprint,
            group.recipe_hash,
            *setting(run),
            group.joint,
        )
        found.setdefault(key, []).append(group)
    return [tuple(members) for members in found.values() if len(members) > 1]


def values_of(members: Sequence[Group], level: str, summary: str) -> np.ndarray:
    """AUROC summaries [n]: one value per seed for one group, one value per order for several.

    The value of an order is the mean over its seeds, NaN if a seed has none. Empty without the level.
    """
    values = [group.values(level, "auroc", summary) for group in members]
    if len(values) == 1:
        return values[0]
    return np.array([v.mean() for v in values]) if all(len(v) for v in values) else np.array([])


def spread_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """One table per data set and protocol: rows are strategies and what is averaged over."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in sorted(groups, key=lambda g: order_of(g.protocol) != "own"):
        key = (group.dataset, group.protocol.partition("+")[0])
        found.setdefault(key, []).append(group)
    return [
        _table(f"spread_{dataset}_{base}", base, members, published, notes)
        for (dataset, base), members in found.items()
    ]


def _table(name: str, base: str, groups: Sequence[Group], published: Published, notes: Notes) -> Table:
    entries = [*((group,) for group in groups), *order_families(groups)]
    marks = footnote_marks(len(entries))
    rows = []
    for level in LEVEL_TITLES:
        for summary in SUMMARIES:
            for mark, members in zip(marks, entries):
                values = values_of(members, level, summary)
                if len(values) and not np.isnan(values).all():
                    labels = (level, heading(summary), *_labels(members))
                    rows.append(Row(labels, _cells(values), note=mark))
    info = groups[0].record.dataset
    synthetic = info.synthetic
    caption = (
        "AUROC in percent: mean ± sample standard deviation (number of values); interval: 95 % percentile "
        "bootstrap of the mean, which is too narrow for few values. Over seeds: one value per seed, in "
        "one order of the objects. Over orders: one value per order, the mean over its seeds. Incomplete "
        "results are left empty."
    )
    if synthetic:
        caption += " Synthetic data: not comparable with any published value."
    return Table(
        name=name,
        title=f"{groups[0].dataset_title}, {protocol_title(base, groups, published)}: "
        "spread over seeds and orders",
        caption=caption,
        definitions=definitions(SUMMARIES),
        label_columns=("Level", "Summary", "Strategy", "Recipe", "Over"),
        columns=tuple(map(Column, ("mean", "95 % interval", "single values"))),
        rows=tuple(rows),
        footnotes=tuple((mark, _footnote(members, notes)) for mark, members in zip(marks, entries)),
        synthetic=synthetic,
    )


def _labels(members: Sequence[Group]) -> tuple[str, str, str]:
    first = members[0]
    if len(members) > 1:
        over = "orders " + ", ".join(order_of(g.protocol) for g in members)
    else:
        seeds = [str(run.seed) for run in first.runs]
        over = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}; order {order_of(first.protocol)}"
    return first.title, f"{first.preset} {first.recipe_hash}".strip(), over


def _cells(values: np.ndarray) -> tuple[Cell, ...]:
    percent = 100 * values
    found = spread(percent.tolist())
    interval = "" if np.isnan(found.low) else f"{_number(found.low)} to {_number(found.high)}"
    singles = " ".join("missing" if np.isnan(v) else _number(v) for v in percent)
    return measured(percent), Cell(text=interval), Cell(text=singles)


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", MINUS)


def _footnote(members: Sequence[Group], notes: Notes) -> str:
    parts = ["runs " + "; ".join(g.ids for g in members)]
    parts += [f"{run.id}: {note}" for g in members for run in g.runs for note in notes.get(run.id, ())]
    return ". ".join(parts)
