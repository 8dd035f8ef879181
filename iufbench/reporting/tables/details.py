"""Detailed tables of one protocol: all continual summaries, metrics and objects, and the costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from iufbench.metrics.summaries import DEFINITIONS
from iufbench.metrics.values import DEFINITIONS as METRICS
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.store import Run
from iufbench.reporting.tables.results import (
    LEVEL_TITLES,
    METRIC_TITLES,
    Notes,
    definitions,
    heading,
    protocol_title,
)
from iufbench.reporting.tables.table import Cell, Column, Row, Table, footnote_marks, mark_best, measured


def detail_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """For every data set and protocol: continual summaries, all metrics, objects; per data set the costs."""
    tables = []
    datasets: dict[str, dict[str, list[Group]]] = {}
    for group in groups:
        protocols = datasets.setdefault(group.dataset, {})
        protocols.setdefault(group.protocol, []).append(group)
    for dataset, protocols in datasets.items():
        for protocol, members in protocols.items():
            where = f"{members[0].dataset_title}, {protocol_title(protocol, members, published)}"
            stem = f"{dataset}_{protocol}"
            tables.append(_continual(f"continual_{stem}", where, members, notes))
            tables.append(_metrics(f"metrics_{stem}", where, members, notes))
            for level in ("image", "pixel"):
                if any("auroc" in g.runs[0].names(level) for g in members):
                    tables.append(_objects(f"objects_{stem}_{level}", where, members, level, notes))
        tables.append(
            _costs(f"costs_{dataset}", [g for m in protocols.values() for g in m], published, notes)
        )
    return tables


def table(
    name: str,
    title: str,
    caption: str,
    labels: tuple[str, ...],
    columns: Sequence[Column],
    rows: Sequence[tuple[Group, Row]],
    notes: Notes,
    summaries: Sequence[str] = (),
    spread: bool = True,
) -> Table:
    """A table of ``rows``, each of a group, with one numbered footnote per group; rows with the same first
    label are compared for the best value."""
    groups = list(dict.fromkeys(group for group, _ in rows))
    marks = dict(zip(groups, footnote_marks(len(groups))))
    noted = [Row(r.labels, r.cells, r.kind, not g.joint, marks[g]) for g, r in rows]
    synthetic = groups[0].record.dataset.synthetic
    if synthetic:
        caption += " Synthetic data: not comparable with any published value."
    footnotes = []
    for group, mark in marks.items():
        parts = [f"runs {group.ids}", group.scoring]
        if group.joint:
            parts.append("trained on all objects at once, so there is one evaluation and no forgetting")
        parts += [f"{run.id}: {note}" for run in group.runs for note in notes.get(run.id, ())]
        footnotes.append((mark, ". ".join(parts)))
    return Table(
        name=name,
        title=title,
        caption=caption,
        definitions=definitions(summaries),
        label_columns=labels,
        columns=tuple(columns),
        rows=mark_best(columns, noted, by_first_label=True),
        footnotes=tuple(footnotes),
        synthetic=synthetic,
        spread=spread,
    )


def _labels(group: Group) -> tuple[str, str]:
    return group.title, f"{group.preset} {group.recipe_hash}".strip()


def _continual(name: str, where: str, groups: Sequence[Group], notes: Notes) -> Table:
    places = [(level, g) for level in ("image", "pixel") for g in groups if "auroc" in g.runs[0].names(level)]
    cells = {s: [measured(g.values(level, "auroc", s), 100) for level, g in places] for s in DEFINITIONS}
    summaries = [s for s, column in cells.items() if any(cell.value is not None for cell in column)]
    columns = [Column(heading(s), higher_is_better=DEFINITIONS[s].higher_is_better) for s in summaries]
    rows = [
        (group, Row((level, *_labels(group)), tuple(cells[s][k] for s in summaries)))
        for k, (level, group) in enumerate(places)
    ]
    caption = (
        "AUROC in percent: mean ± sample standard deviation over seeds (number of seeds). "
        "Incomplete results are left empty; summaries that no run has are omitted. "
        "Best value of a column and level in bold."
    )
    labels = ("Level", "Strategy", "Recipe")
    return table(name, f"{where}: continual summaries", caption, labels, columns, rows, notes, summaries)


def _metrics(name: str, where: str, groups: Sequence[Group], notes: Notes) -> Table:
    names = dict.fromkeys(
        (level, metric) for level in ("image", "pixel") for g in groups for metric in g.runs[0].names(level)
    )
    columns = [
        Column(METRIC_TITLES.get(m, m), LEVEL_TITLES[level], m not in METRICS or METRICS[m].higher_is_better)
        for level, m in names
    ]
    rows = []
    summaries = ("acc", "acc_final")
    for summary in summaries:
        for group in groups:
            cells = tuple(measured(group.values(level, m, summary), 100) for level, m in names)
            rows.append((group, Row((DEFINITIONS[summary].title, *_labels(group)), cells)))
    caption = (
        "In percent: mean ± sample standard deviation over seeds (number of seeds). "
        "Incomplete results are left empty. Best value of a column and summary in bold."
    )
    labels = ("Summary", "Strategy", "Recipe")
    return table(name, f"{where}: all metrics", caption, labels, columns, rows, notes, summaries)


def _objects(name: str, where: str, groups: Sequence[Group], level: str, notes: Notes) -> Table:
    objects = list(dict.fromkeys(o for g in groups for o in g.runs[0].objects))
    columns = [Column(o.replace("_", " "), higher_is_better=True) for o in objects]
    columns.append(Column("mean", higher_is_better=True))
    rows = []
    for when in ("learnt", "last"):
        for group in groups:
            if "auroc" not in group.runs[0].names(level):
                continue
            values = np.array([_of_objects(run, level, when, objects) for run in group.runs])
            cells = [measured(column, 100) for column in values.T]
            cells.append(measured(values.mean(axis=1), 100))
            seeds = f"{_labels(group)[1]} (n={len(group.runs)})"
            rows.append((group, Row((WHEN[when], group.title, seeds), tuple(cells))))
    caption = (
        f"{level.capitalize()}-level AUROC in percent, mean over n seeds: right after the experience that "
        "introduced the object, and after the last experience. Best value of a column in bold."
    )
    labels = ("Measured", "Strategy", "Recipe")
    title = f"{where}: objects, {LEVEL_TITLES[level]}"
    return table(name, title, caption, labels, columns, rows, notes, spread=False)


WHEN = {"learnt": "when introduced", "last": "after the last"}


def _of_objects(run: Run, level: str, when: str, objects: Sequence[str]) -> np.ndarray:
    if "auroc" not in run.names(level):
        return np.full(len(objects), np.nan)
    matrix = run.matrix(level)
    rows = matrix.introduced if when == "learnt" else np.full(len(matrix.objects), len(matrix.values) - 1)
    values = dict(zip(matrix.objects, matrix.values[rows, np.arange(len(matrix.objects))]))
    return np.array([values[o] for o in objects])


# ---- costs -----------------------------------------------------------------------------------------


def cost(*keys: str) -> Callable[[Run], float]:
    """Return a reader of one number of ``run.json``: the largest of a list, NaN if it was not recorded."""

    def value(run: Run) -> float:
        found: Any = run.record
        for key in keys:
            found = getattr(found, key)
        if isinstance(found, list):
            found = max(found, default=None)
        return float(found) if isinstance(found, (int, float)) else np.nan

    return value


def test_images_per_second(run: Run) -> float:
    """Test images scored per second of evaluation, over all experiences; NaN if not recorded."""
    counts = run.record.dataset.counts
    evaluated = set(zip(run.measured.experience.tolist(), run.measured.column.tolist()))
    images = sum(counts.get(run.objects[column], {}).get("test", np.nan) for _, column in evaluated)
    seconds = cost("seconds", "evaluate")(run)
    return images / seconds if seconds else np.nan


def adding(name: str) -> Callable[[Run], float]:
    """Return a reader of the mean cost per new object in increments: the sum of a list of ``run.json`` over
    all experiences but the first, divided by the number of objects added; NaN without increments."""

    def value(run: Run) -> float:
        found = list(getattr(run.record.costs, name))
        objects = sum(map(len, run.experiences[1:]))
        return sum(found[1:]) / objects if objects and len(found) == len(run.experiences) else np.nan

    return value


def growth(run: Run) -> float:
    """Growth of stored bytes per object added in increments; NaN without increments."""
    kept, objects = run.record.costs.bytes_kept, sum(map(len, run.experiences[1:]))
    return (kept[-1] - kept[0]) / objects if objects and len(kept) == len(run.experiences) else np.nan


def per_image(name: str) -> Callable[[Run], float]:
    """Return a reader of the milliseconds per image after the last experience; NaN if not measured."""

    def value(run: Run) -> float:
        found = run.latency
        return np.nan if found is None else float(getattr(found.points[-1].total, name))

    return value


COSTS: list[tuple[str, str, Callable[[Run], float], float, int]] = [
    ("adding one object", "seconds", adding("train_seconds"), 1, 1),
    ("adding one object", "images shown", adding("trained_images"), 1, 0),
    ("adding one object", "bytes (MB)", growth, 1e-6, 2),
    ("parameters", "total (M)", cost("costs", "parameters_total"), 1e-6, 2),
    ("parameters", "trainable (M)", cost("costs", "parameters_trainable"), 1e-6, 2),
    ("kept for later", "bytes (MB)", cost("costs", "bytes_kept"), 1e-6, 2),
    ("kept for later", "images", cost("costs", "replayed_images"), 1, 0),
    ("seconds", "features", cost("seconds", "features"), 1, 1),
    ("seconds", "training", cost("seconds", "train"), 1, 1),
    ("seconds", "evaluation", cost("seconds", "evaluate"), 1, 1),
    ("images/s", "training", cost("costs", "train_images_per_s"), 1, 1),
    ("images/s", "evaluation", test_images_per_second, 1, 1),
    ("ms per image", "median", per_image("median"), 1, 2),
    ("ms per image", "95 %", per_image("p95"), 1, 2),
    ("peak memory (MB)", "main", cost("costs", "peak_memory_mb"), 1, 0),
    ("peak memory (MB)", "GPU", cost("costs", "peak_device_memory_mb"), 1, 0),
]


def timed_on(groups: Sequence[Group]) -> list[str]:
    """The devices and threads on which the latency of runs was measured."""
    found = [run.latency for group in groups for run in group.runs]
    return sorted(
        {f"{x.device} ({x.threads} CPU thread{'s' * (x.threads > 1)})" for x in found if x is not None}
    )


def _costs(name: str, groups: Sequence[Group], published: Published, notes: Notes) -> Table:
    timed = any(run.latency for group in groups for run in group.runs)
    costs = [row for row in COSTS if timed or row[0] != "ms per image"]
    columns = [Column(title, above) for above, title, *_ in costs]
    columns += [Column("at training", "object id"), Column("at test", "object id"), Column("device", "")]
    rows = []
    for group in groups:
        cells = [measured([read(r) for r in group.runs], scale, d) for _, _, read, scale, d in costs]
        cells = [replace(c, sd=c.sd or None) for c in cells]  # a constant count has no spread
        uses = group.record.strategy.uses
        for key in ("object_id_at_training", "object_id_at_test"):
            cells.append(Cell(text="" if uses.get(key) is None else "yes" if uses[key] else "no"))
        devices = {str(r.record.environment.device or "") for r in group.runs}
        cells.append(Cell(text=", ".join(sorted(devices))))
        labels = (protocol_title(group.protocol, groups, published), *_labels(group))
        rows.append((group, Row(labels, tuple(cells))))
    caption = (
        "Mean ± sample standard deviation over seeds (number of seeds). Adding one object: training seconds "
        "and images shown (epochs counted) in increments, and growth of stored bytes, per new object. "
        "Parameters: of the learner, without "
        "the frozen backbone. Kept for later: the maximum carried from one experience to the next, "
        "in bytes, and the old training images in it. Seconds: wall time of a whole run; features: reading "
        "images and the frozen backbone. "
        "Times of different devices are not comparable."
    )
    if timed:
        caption += (
            " ms per image: decoding, backbone and learner at batch 1 after the last experience, on "
            f"{', '.join(timed_on(groups))}."
        )
    title = f"{groups[0].dataset_title}: costs"
    return table(name, title, caption, ("Protocol", "Strategy", "Recipe"), columns, rows, notes)
