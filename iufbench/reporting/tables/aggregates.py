"""Strategies compared over objects and seeds: interquartile means, ranks and probabilities of improvement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iufbench.metrics.aggregate import AGGREGATES, Estimate
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.standings import RIVALS, standings, streams
from iufbench.reporting.store import LEVELS
from iufbench.reporting.tables.details import table
from iufbench.reporting.tables.results import Notes, heading, protocol_title
from iufbench.reporting.tables.table import Cell, Column, Row, Table, measured

SHOWN = ("iqm", "rank_interval", "probability_of_improvement")
CAPTION = (
    "AUROC after the last experience, over objects and seeds; ACC-final: mean ± sample standard deviation "
    "over seeds (number of seeds). Brackets: 95 % intervals over seeds (stratified percentile bootstrap), "
    "coarse for few seeds; a single seed has none. Joint training has no rank. Best value of a column and "
    "level in bold."
)


def aggregate_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """One table with ranked rows per data set and protocol with at least two strategies."""
    found = [_table(members, published, notes) for members in streams(groups) if len(members) > 1]
    tables = [made for made in found if made is not None]
    names = [made.name for made in tables]  # a protocol's name can have several orders
    return [
        replace(made, name=f"{made.name}_{k}") if names.count(made.name) > 1 else made
        for k, made in enumerate(tables)
    ]


def _table(groups: Sequence[Group], published: Published, notes: Notes) -> Table | None:
    ranked = [(level, s) for level in LEVELS for s in standings(groups, level)]
    ranked = [(level, s) for level, s in ranked if s.values is not None]
    if not ranked:
        return None
    rivals = [name for name in RIVALS if any(name in s.better for _, s in ranked)]
    columns = [
        Column("rank"),
        Column("95 % ranks"),
        Column(heading("acc_final"), higher_is_better=True),
        Column("IQM ↑", higher_is_better=True),
        Column("95 % interval"),
    ]
    for name in rivals:
        columns += [Column(f"P(> {name}) ↑"), Column("95 % interval")]
    rows = []
    for level, found in ranked:
        group = found.group
        cells = [
            Cell() if found.rank is None else Cell(float(found.rank), decimals=0),
            Cell(text=found.interval),
            measured(group.values(level, "auroc", "acc_final"), 100),
            *_cells(found.iqm, 100, 1),
        ]
        for name in rivals:
            cells += _cells(found.better[name], 1, 2) if name in found.better else [Cell(), Cell()]
        recipe = f"{group.preset} {group.recipe_hash}".strip()
        rows.append((group, Row((level, group.title, recipe), tuple(cells))))
    first = groups[0]
    where = f"{first.dataset_title}, {protocol_title(first.protocol, groups, published)}"
    made = table(
        f"aggregates_{first.dataset}_{first.protocol}",
        f"{where}: over objects and seeds",
        CAPTION,
        ("Level", "Strategy", "Recipe"),
        columns,
        rows,
        notes,
        ("acc_final",),
    )
    terms = tuple((AGGREGATES[n].title, f"{AGGREGATES[n].formula} ({AGGREGATES[n].used_by})") for n in SHOWN)
    return replace(made, definitions=made.definitions + terms)


def _cells(found: Estimate, unit: float, decimals: int) -> list[Cell]:
    interval = ""
    if not np.isnan(found.low):
        interval = f"[{unit * found.low:.{decimals}f}, {unit * found.high:.{decimals}f}]"
    return [Cell(unit * found.value, decimals=decimals), Cell(text=interval)]
