"""The first table of the report: strategies in order of rank, for every data set and protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from iufbench.metrics.summaries import DEFINITIONS
from iufbench.reporting.against_frozen import AgainstFrozen, against_frozen
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.store import LEVELS
from iufbench.reporting.tables.details import COSTS
from iufbench.reporting.tables.plane import MISSING
from iufbench.reporting.tables.results import protocol_title
from iufbench.reporting.tables.table import Cell, Column, Row, mark_best, measured

SUMMARIES = ("acc", "acc_final", "fm_final", "plasticity", "retention")
RANKED_BY = "acc_final"
COSTS_SHOWN = {("seconds", "training"): "Training (s)", ("kept for later", "bytes (MB)"): "Kept (MB)"}


@dataclass(frozen=True)
class Place:
    """A row: its rank (None without a value to rank by), and cells in the order of the columns.

    ``recipe`` is empty where the strategy has one recipe only.
    """

    rank: int | None
    group: Group
    recipe: str
    cells: tuple[Cell, ...]
    against_frozen: AgainstFrozen | None


@dataclass(frozen=True)
class Ranking:
    """The strategies on one data set and protocol, best first."""

    title: str
    synthetic: bool
    level: str
    levels: tuple[str, ...]
    costs: tuple[Column, ...]
    places: tuple[Place, ...]
    note: str

    @property
    def firsts(self) -> tuple[int, ...]:
        """The cells that start a block of columns: each level, and the costs."""
        return tuple(len(SUMMARIES) * k for k in range(len(self.levels) + 1))

    @property
    def compares_with_frozen(self) -> bool:
        return any(place.against_frozen for place in self.places)


def rankings(groups: Sequence[Group], published: Published) -> list[Ranking]:
    """Rank the strategies of every data set and protocol.

    The criterion is ACC-final of the image AUROC, or of the pixel AUROC if no run has image scores. Equal
    printed values share a rank; strategies without a value come last.
    """
    streams: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        streams.setdefault((group.dataset, group.protocol), []).append(group)
    return [found for members in streams.values() if (found := _ranking(members, published)) is not None]


def _ranking(groups: Sequence[Group], published: Published) -> Ranking | None:
    levels = tuple(level for level in LEVELS if any("auroc" in g.runs[0].names(level) for g in groups))
    if not levels:
        return None
    costs = [
        (COSTS_SHOWN[above, title], read, scale, decimals)
        for above, title, read, scale, decimals in COSTS
        if (above, title) in COSTS_SHOWN
    ]
    columns = [Column(s, higher_is_better=DEFINITIONS[s].higher_is_better) for _ in levels for s in SUMMARIES]
    columns += [Column(title) for title, *_ in costs]
    rows = []
    for group in groups:
        cells = [measured(group.values(v, "auroc", s), 100) for v in levels for s in SUMMARIES]
        spent = [measured([read(r) for r in group.runs], scale, d) for _, read, scale, d in costs]
        cells += [replace(cell, sd=None) for cell in spent]  # their spread is in the table of costs
        rows.append(Row((group.title,), tuple(cells), competes=not group.joint))
    marked = [row.cells for row in mark_best(columns, rows)]
    by = SUMMARIES.index(RANKED_BY)
    order = sorted(range(len(groups)), key=lambda k: -_shown(marked[k][by]))
    values = [_shown(marked[k][by]) for k in order]
    titles = [g.title for g in groups]
    places = tuple(
        Place(
            values.index(value) + 1 if value > NOTHING else None,
            groups[k],
            f"{groups[k].preset} {groups[k].recipe_hash}".strip() if titles.count(titles[k]) > 1 else "",
            marked[k],
            against_frozen(groups[k], levels[0]),
        )
        for k, value in zip(order, values)
    )
    unknown = any(c[SUMMARIES.index("plasticity")].value is None for c in marked)
    unknown = unknown and not all(g.joint for g in groups)
    return Ranking(
        title=f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}",
        synthetic=groups[0].record.dataset.synthetic,
        level=levels[0],
        levels=levels,
        costs=tuple(columns[-len(costs) :]),
        places=places,
        note=f"Without plasticity: joint training, and runs with {MISSING}." if unknown else "",
    )


NOTHING = float("-inf")


def _shown(cell: Cell) -> float:
    return NOTHING if cell.value is None else round(cell.value, cell.decimals)
