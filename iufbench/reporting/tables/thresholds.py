"""Decisions at thresholds from normal images: whether they hold along the stream, of runs and of objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from iufbench.metrics.drift import DRIFTS
from iufbench.metrics.thresholds import read_rule
from iufbench.reporting.drift import by_object, calibrated, drifts, guaranteed, pooled
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.tables.details import Notes, table
from iufbench.reporting.tables.results import protocol_title
from iufbench.reporting.tables.table import Cell, Column, Row, Table, measured

NOTHING = "–"
GUARANTEE = (
    "Guaranteed: the false-alarm rate that the calibration images guarantee at 95 % confidence, for any "
    "distribution of scores, if images and model are as at calibration; later drift is not covered."
)
CAPTION = (
    "Rates in percent, drifts in percentage points: mean ± sample standard deviation over seeds (number of "
    "seeds). Drift: final minus right after learning, at the threshold frozen then, mean over the "
    "objects not of the last experience; worst: largest increase of any of them at any time. Nominal: "
    "the false-alarm rate that the rule aims at. " + GUARANTEE + " Pooled image AUROC: over the images of "
    "all objects together, as with one threshold for all; gap: mean over objects minus pooled. "
    f"{NOTHING}: the run has no thresholds (made without --threshold), or nothing was learnt before its last "
    "experience; undefined: an object lacks good or defective test images, or its scores."
)
OBJECT_CAPTION = (
    "Image level, in percent, mean over seeds. Frozen: threshold from the calibration images right after the "
    "object was learnt; re-calibrated: from the same images scored after the last experience (right after "
    "learning both are one). Transferred: the threshold with the best F1 on the test images right after "
    "learning, an oracle that needs defects. " + GUARANTEE + f" {NOTHING}: the run has no thresholds (made "
    "without --threshold)."
)
OBJECT_COLUMNS = (
    ("images", "calibration", "images", None),
    ("guaranteed", "calibration", "guaranteed ≤", None),
    ("false_alarm_frozen_learnt", "false alarms", "when learnt", False),
    ("false_alarm_frozen_final", "false alarms", "final, frozen", False),
    ("false_alarm_own_final", "false alarms", "final, re-calibrated", False),
    ("recall_frozen_learnt", "recall", "when learnt", True),
    ("recall_frozen_final", "recall", "final, frozen", True),
    ("recall_own_final", "recall", "final, re-calibrated", True),
    ("f1_frozen_learnt", "F1", "when learnt", True),
    ("f1_frozen_final", "F1", "final, frozen", True),
    ("f1_transferred_final", "F1", "final, transferred (oracle)", None),
)
RUN_COLUMNS = (
    Column("rule", "threshold"),
    Column("nominal", "threshold"),
    Column("guaranteed ≤", "threshold"),
    Column("drift", "false alarms", False),
    Column("worst", "false alarms", False),
    Column("drift", "recall", True),
    Column("mean", "image AUROC", True),
    Column("pooled", "image AUROC", True),
    Column("gap", "image AUROC", False),
)


def threshold_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """For every data set and protocol: drift and pooling of all runs, objects where there are thresholds."""
    streams: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        streams.setdefault((group.dataset, group.protocol), []).append(group)
    tables = []
    for (dataset, protocol), members in streams.items():
        where = f"{members[0].dataset_title}, {protocol_title(protocol, members, published)}"
        stem = f"{dataset}_{protocol}"
        rows = [(g, Row(_labels(g), _run_cells(g))) for g in members]
        make = partial(table, notes=notes)
        labels = ("Strategy", "Recipe")
        found = make(f"drift_{stem}", f"{where}: do thresholds hold", CAPTION, labels, RUN_COLUMNS, rows)
        tables.append(found)
        if any(calibrated(g.runs[0]) for g in members):
            columns = [Column(title, above, better) for _, above, title, better in OBJECT_COLUMNS]
            rows = [row for name in _objects(members) for row in _object_rows(name, members)]
            title, of_objects = f"{where}: objects at their thresholds", ("Object", *labels)
            tables.append(
                make(f"thresholds_{stem}", title, OBJECT_CAPTION, of_objects, columns, rows, spread=False)
            )
    return tables


def _labels(group: Group) -> tuple[str, str]:
    return group.title, f"{group.preset} {group.recipe_hash}".strip()


def _objects(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(o for g in groups for o in g.runs[0].objects))


def _or(cell: Cell, text: str) -> Cell:
    """The cell, or a text where it has no number."""
    return Cell(text=text) if cell.value is None else cell


def _run_cells(group: Group) -> tuple[Cell, ...]:
    record = group.record.thresholds
    drift = (Cell(text=NOTHING),) * len(DRIFTS)
    threshold = (Cell(text="none"), Cell(text=NOTHING), Cell(text=NOTHING))
    if record is not None:
        found = [drifts(run) for run in group.runs]
        missing = NOTHING if group.joint else "undefined"
        drift = tuple(_or(measured([f[name] for f in found], 100), missing) for name in DRIFTS)
        rule = read_rule(record.rule)
        nominal = "none" if rule.nominal is None else f"{100 * rule.nominal:g}"
        threshold = (Cell(text=record.rule), Cell(text=nominal), Cell(text=_range(group)))
    both = np.array([pooled(run) for run in group.runs])
    values = (both.sum(axis=1), *both.T)
    return (*threshold, *drift, *(_or(measured(v, 100), "undefined") for v in values))


def _range(group: Group) -> str:
    """The guaranteed rates of the objects in percent: ``12.4 to 45.1``."""
    rates = np.array([rate for run in group.runs for rate in guaranteed(run).values()])
    if not rates.size or np.isnan(rates).any():
        return "none"
    ends = list(dict.fromkeys(f"{100 * rate:.1f}" for rate in (rates.min(), rates.max())))
    return " to ".join(ends)


def _object_rows(name: str, groups: Sequence[Group]) -> list[tuple[Group, Row]]:
    rows = []
    for group in groups:
        if name not in group.runs[0].objects:
            continue
        cells = (Cell(text="none"), *[Cell(text=NOTHING)] * (len(OBJECT_COLUMNS) - 1))
        if calibrated(group.runs[0]):
            frames = [by_object(run).set_index("object").loc[name] for run in group.runs]
            cells = tuple(_object_cell(key, frames) for key, *_ in OBJECT_COLUMNS)
        rows.append((group, Row((name, *_labels(group)), cells)))
    return rows


def _object_cell(key: str, frames: Sequence[pd.Series]) -> Cell:
    values = [float(frame[key]) for frame in frames]
    if key == "images":
        return measured(values, 1, 0)
    return _or(measured(values, 100), "none" if key == "guaranteed" else "undefined")
