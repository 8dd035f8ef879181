"""Strategies that select a memory for every image: how often correctly, and the cost of errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iufbench.reporting.groups import Group, setting
from iufbench.reporting.routing import last, routes
from iufbench.reporting.tables.details import Notes, table
from iufbench.reporting.tables.table import Cell, Column, Row, Table, measured

CAPTION = (
    "After the last experience. Routing accuracy: test images scored by the memory of their own object, mean "
    "over objects. Image AUROC over the correctly and over the wrongly routed images. Oracle gap: final mean "
    "image AUROC of the same strategy with known objects (its card with _oracle) minus this one's."
)


def routing_tables(groups: Sequence[Group], notes: Notes) -> list[Table]:
    """One table per data set and protocol with strategies that route images."""
    streams: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        streams.setdefault((group.dataset, group.protocol), []).append(group)
    tables = []
    for (dataset, protocol), members in streams.items():
        routing = [g for g in members if routes(g.runs[0])]
        if not routing:
            continue
        columns = [
            Column("Routing accuracy", "", True),
            Column("right", "image AUROC, routed", None),
            Column("wrong", "image AUROC, routed", None),
            Column("Oracle gap", "", False),
        ]
        rows = [
            (g, Row((g.title, f"{g.preset} {g.recipe_hash}".strip()), _cells(g, members))) for g in routing
        ]
        title = f"{members[0].dataset_title}, {protocol}: routing"
        labels = ("Strategy", "Recipe")
        tables.append(table(f"routing_{dataset}_{protocol}", title, CAPTION, labels, columns, rows, notes))
    return tables


def _cells(group: Group, members: Sequence[Group]) -> tuple[Cell, ...]:
    shown = [measured(last(group.runs, c), 100) for c in ("routing_acc", "auroc_right", "auroc_wrong")]
    return (*shown, measured(oracle_gap(group, members), 100))


def oracle_gap(group: Group, members: Sequence[Group]) -> np.ndarray:
    """Per common seed, final mean image AUROC of the oracle minus that of ``group``; else empty."""
    name = f"{group.strategy}_oracle"
    same = [g for g in members if g.strategy == name and setting(g.runs[0])[2:] == setting(group.runs[0])[2:]]
    if not same:
        return np.array([])
    finals = [
        dict(zip((run.seed for run in g.runs), g.values("image", "auroc", "acc_final")))
        for g in (same[0], group)
    ]
    return np.array([finals[0][seed] - finals[1][seed] for seed in finals[0] if seed in finals[1]])
