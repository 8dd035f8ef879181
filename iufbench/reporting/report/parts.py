"""The content of the report's templates, as plain data before escaping."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iufbench.reporting.figures.matrix import LOWEST, colour_scale
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.store import LEVELS, Run
from iufbench.reporting.tables.results import METRIC_TITLES, protocol_title
from iufbench.reporting.tables.table import Cell, measured

SUMMARIES = ("acc", "acc_final", "fm", "fm_final", "bwt", "new_object")
FILTERS = {
    "dataset": "data set",
    "protocol": "protocol",
    "strategy": "strategy",
    "level": "level",
    "metric": "metric",
}


def anchor(run: Run) -> str:
    """The HTML id of a run's provenance."""
    return "run-" + "".join(c if c.isalnum() or c in "-_" else f".{ord(c):x}" for c in run.id)


# ---- the overview ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One row of the overview. ``filters`` has a value for each of ``FILTERS``; ``kind`` is ``ours`` or
    ``published``; ``runs`` are the measured ones."""

    filters: Mapping[str, str]
    synthetic: bool
    kind: str
    source: str
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]


def overview(groups: Sequence[Group], published: Published) -> list[Entry]:
    """One row per group, level and metric, and the published rows of the same protocols."""
    return [*_measured(groups, published), *_published(groups, published)]


def choices(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """The options of each filter, in the order of the rows."""
    rows = list(entries)
    return {name: list(dict.fromkeys(entry.filters[name] for entry in rows)) for name in FILTERS}


def _measured(groups: Sequence[Group], published: Published) -> list[Entry]:
    return [
        Entry(
            _filters(group, published, group.title, level, METRIC_TITLES.get(metric, metric)),
            group.record.dataset.synthetic,
            "ours",
            f"{group.preset} {group.recipe_hash}".strip(),
            group.runs,
            tuple(measured(group.values(level, metric, s), 100) for s in SUMMARIES),
        )
        for group in groups
        for level in LEVELS
        for metric in group.runs[0].names(level)
    ]


def _filters(group: Group, published: Published, strategy: str, level: str, metric: str) -> dict[str, str]:
    protocol = protocol_title(group.protocol, [group], published)
    return dict(zip(FILTERS, (group.dataset_title, protocol, strategy, level, metric)))


def _published(groups: Sequence[Group], published: Published) -> list[Entry]:
    entries: list[Entry] = []
    real = {g.protocol: g for g in groups if not g.record.dataset.synthetic}
    for protocol, group in real.items():
        for method in published.methods_of():
            for level in LEVELS:
                values = [published.value(method.name, protocol, level, s) for s in SUMMARIES]
                if not any(values):
                    continue
                filters = _filters(group, published, method.title, level, "AUROC")
                cells = tuple(Cell() if v is None else Cell(v.percent, sign=v.sign) for v in values)
                papers = "; ".join(sorted({v.paper for v in values if v is not None}))
                entries.append(Entry(filters, False, "published", papers, (), cells))
    return entries


# ---- runs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shade:
    """A cell of a matrix: ``kind`` is ``seen``, ``unseen``, ``mean`` or ``missing`` (then nothing else)."""

    kind: str
    text: str = ""
    background: str = ""
    ink: str = ""


@dataclass(frozen=True)
class Matrix:
    """R of a run in percent: rows are evaluations (label, names of the new objects, cells), columns objects
    and the mean of those seen so far."""

    level: str
    metric: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Shade, ...]], ...]


def matrix(run: Run, level: str, metric: str = "auroc") -> Matrix:
    """R with its colours."""
    found = run.matrix(level, metric)
    finite = found.values[~np.isnan(found.values)]
    scale = colour_scale(min(LOWEST, float(finite.min())) if len(finite) else LOWEST)
    rows = []
    for t, (row, seen) in enumerate(zip(found.values, found.seen)):
        cells = [_shade(v, scale, "seen" if s else "unseen") for v, s in zip(row, seen)]
        cells.append(_shade(row[seen].mean(), scale, "mean"))
        new = ", ".join(o.replace("_", " ") for o in run.experiences[t])
        label = new if len(run.experiences[t]) <= 2 else f"{len(run.experiences[t])} objects"
        rows.append((f"{t + 1}: {label}", new, tuple(cells)))
    columns = (*(o.replace("_", " ") for o in found.objects), "mean of seen")
    return Matrix(level, METRIC_TITLES.get(metric, metric), columns, tuple(rows))


def _shade(value: float, scale: Any, kind: str) -> Shade:
    if np.isnan(value):
        return Shade("missing")
    red, green, blue, _ = (round(255 * c) for c in scale.to_rgba(value))
    ink = "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 128 else "#000"
    return Shade(kind, f"{100 * value:.1f}", f"rgb({red},{green},{blue})", ink)


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers come from: data, weights, software, command, recipe; with its matrices."""

    run: Run
    notes: tuple[str, ...]
    matrices: tuple[Matrix, ...]
    facts: Mapping[str, str]
    recipe: str


def provenance(run: Run, notes: Sequence[str]) -> Provenance:
    """The provenance of a run from ``run.json``, as text; ``notes`` list its problems."""
    info, known = run.record, run.info
    environment, backbone, dataset, strategy = info.environment, info.backbone, info.dataset, info.strategy
    facts = {
        "command": info.command,
        "data": f"{dataset.name}, licence: {dataset.licence or 'unknown'}",
        "data fingerprint": dataset.fingerprint,
        "order of objects": info.protocol.order,
        "backbone": f"{backbone.name}, {backbone.weights}",
        "weights sha256": backbone.weights_sha256,
        "image and map size": f"{info.image_size}, {info.map_size}",
        "strategy": f"{strategy.name}, version {strategy.version}",
        "uses": _plain(strategy.uses),
        "seeds": _plain(info.seeds),
        "device": f"{environment.device}, {environment.threads} threads",
        "packages": _plain(environment.packages),
        "Python": environment.python,
        "git": _plain(environment.git),
        "started": info.started,
        "finished": info.finished,
        "seconds": _plain(known.get("seconds")),
        "costs": _plain(known.get("costs")),
        "iufbench": info.iufbench,
    }
    matrices = tuple(matrix(run, level) for level in LEVELS if "auroc" in run.names(level))
    recipe = json.dumps(info.recipe, indent=1, ensure_ascii=False)
    return Provenance(run, tuple(notes), matrices, {k: str(v) for k, v in facts.items() if v}, recipe)


def _plain(value: Any) -> str:
    """A mapping from run.json as one line of text."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
