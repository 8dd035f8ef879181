"""The learning-forgetting plane as a table: learning and forgetting in increments, compared with frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iufbench.reporting.against_frozen import against_frozen
from iufbench.reporting.groups import FROZEN, Group
from iufbench.reporting.literature import Published
from iufbench.reporting.relative import knows_unseen
from iufbench.reporting.store import LEVELS
from iufbench.reporting.tables.details import table
from iufbench.reporting.tables.results import Notes, heading, protocol_title
from iufbench.reporting.tables.table import Cell, Column, Row, Table, measured

CORNERS = (FROZEN, "finetune", "joint", "separate")
SUMMARIES = ("plasticity", "retention", "new_object", "acc_final")
MISSING = (
    "no zero-shot values: run with --eval-unseen, or run `frozen` with the same protocol, preset and seeds"
)


@dataclass(frozen=True)
class Point:
    """A strategy on the plane, in percentage points, one value per seed.

    ``plasticity`` and ``retention`` are [n]; joint training, evaluated once, has retention 0 by construction.
    ``zero_shot`` states the source of the values of objects before they were learnt.
    """

    group: Group
    plasticity: np.ndarray
    retention: np.ndarray
    zero_shot: str

    @property
    def complete(self) -> bool:
        """Whether the strategy can be drawn: every seed has both values."""
        values = np.concatenate([self.plasticity, self.retention])
        return values.size > 0 and not np.isnan(values).any()


def points(groups: Sequence[Group], level: str) -> list[Point]:
    """The groups of one protocol that have AUROC at the level, in their order."""
    found = []
    for group in groups:
        if "auroc" not in group.runs[0].names(level):
            continue
        gain = 100 * group.values(level, "auroc", "plasticity")
        kept = np.zeros(len(gain)) if group.joint else 100 * group.values(level, "auroc", "retention")
        found.append(Point(group, gain, kept, _source(group, level)))
    return found


def _source(group: Group, level: str) -> str:
    if all(knows_unseen(run, level) for run in group.runs):
        return "own, --eval-unseen"
    return FROZEN if FROZEN in group.references else "missing"


def plane_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """For every data set and protocol with increments: what was learnt, what was retained, and whether that
    is better than frozen.
    """
    streams: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        streams.setdefault((group.dataset, group.protocol), []).append(group)
    found = [
        _table(f"learning_{dataset}_{protocol}", members, published, notes)
        for (dataset, protocol), members in streams.items()
    ]
    return [one for one in found if one is not None]


def _table(name: str, groups: Sequence[Group], published: Published, notes: Notes) -> Table | None:
    rows, anything, missing = [], False, False
    for level in LEVELS:
        for point in points(groups, level):
            group = point.group
            anything |= not group.joint
            missing |= point.zero_shot == "missing"
            compared = against_frozen(group, level)
            cells = [measured(group.values(level, "auroc", s), 100) for s in SUMMARIES]
            cells += [Cell(text=compared.text if compared else ""), Cell(text=point.zero_shot)]
            labels = (level, group.title, f"{group.preset} {group.recipe_hash}".strip())
            rows.append((group, Row(labels, tuple(cells))))
    if not anything:
        return None
    columns = [Column(heading(s), higher_is_better=True) for s in SUMMARIES]
    columns += [Column("against frozen (ACC-final)"), Column("zero-shot values")]
    caption = (
        "AUROC in percent or percentage points: mean ± sample standard deviation over seeds (number of "
        "seeds). Against frozen: AUROC after the last experience, paired by object (mean over common seeds), "
        "one-sided sign-flip test at 5 %. Zero-shot values: from the run itself if unseen objects were "
        "evaluated, else from the run of frozen with the same seed."
    )
    caption += f" Missing: {MISSING}." if missing else ""
    where = f"{groups[0].dataset_title}, {protocol_title(groups[0].protocol, groups, published)}"
    title = f"{where}: learning and forgetting"
    labels = ("Level", "Strategy", "Recipe")
    return table(name, title, caption, labels, columns, rows, notes, SUMMARIES)
