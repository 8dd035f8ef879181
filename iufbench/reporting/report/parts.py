"""The parts of the report: overview, matrices, provenance, definitions. Everything from a run is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from iufbench.metrics.continual import DEFINITIONS
from iufbench.reporting.figures.matrix import LOWEST, colour_scale
from iufbench.reporting.groups import Group
from iufbench.reporting.literature import Published
from iufbench.reporting.store import LEVELS, Run
from iufbench.reporting.tables.render import cell_text
from iufbench.reporting.tables.results import METRIC_TITLES, heading, protocol_title
from iufbench.reporting.tables.table import Cell, measured

SUMMARIES = ("acc", "acc_final", "fm", "fm_final", "bwt", "new_object")
FILTERS = {
    "dataset": "data set",
    "protocol": "protocol",
    "strategy": "strategy",
    "level": "level",
    "metric": "metric",
}
BADGE = '<span class="badge">synthetic</span>'


def anchor(run: Run) -> str:
    """The id of a run's provenance in the page."""
    return "run-" + "".join(c if c.isalnum() or c in "-_" else f".{ord(c):x}" for c in run.id)


def overview(groups: Sequence[Group], published: Published) -> str:
    """One row a group, level and metric, and the published rows of the same protocols."""
    rows = [_row(*entry) for entry in [*_measured(groups, published), *_published(groups, published)]]
    options: dict[str, list[str]] = {name: [] for name in FILTERS}
    for fields, _, _ in [*_measured(groups, published), *_published(groups, published)]:
        for name in FILTERS:
            if fields[name] not in options[name]:
                options[name].append(fields[name])
    controls = "".join(
        f'<label>{escape(title)}<select name="{name}"><option value="">all</option>'
        + "".join(f'<option value="{escape(v)}">{escape(v)}</option>' for v in options[name])
        + "</select></label>"
        for name, title in FILTERS.items()
    )
    heads = [_head(title) for title in ("Data set", "Protocol", "Strategy", "Source", "Level", "Metric")]
    heads += [
        _head(heading(s), "descending" if DEFINITIONS[s].higher_is_better else "ascending", s)
        for s in SUMMARIES
    ]
    return (
        '<form id="overview-filters" class="filters" hidden>'
        f'{controls}<label class="check"><input type="checkbox" checked> published rows</label>'
        '<button class="plain" type="reset">Reset</button></form>\n'
        '<p id="overview-status" class="soft" role="status"></p>\n'
        '<div class="scroll" role="region" aria-label="Overview" tabindex="0"><table id="overview-table">'
        "<caption><div>In percent, mean ± sample standard deviation over seeds (number of seeds). Published "
        "values: ≈ read from a figure, * from a secondary source. Empty: not measured or incomplete. "
        "Press a column's name to sort, ? for its definition.</div></caption>"
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table></div>"
    )


Entry = tuple[dict[str, str], list[Cell], str]


def _measured(groups: Sequence[Group], published: Published) -> list[Entry]:
    entries: list[Entry] = []
    for group in groups:
        links = ", ".join(f'<a href="#{anchor(r)}">seed {r.record.seed}</a>' for r in group.runs)
        for level in LEVELS:
            for metric in group.runs[0].names(level):
                fields = _fields(group, published) | {
                    "level": level,
                    "metric": METRIC_TITLES.get(metric, metric),
                    "kind": "ours",
                }
                cells = [measured(group.values(level, metric, s), 100) for s in SUMMARIES]
                source = f"{escape(f'{group.preset} {group.recipe_hash}'.strip())}: {links}"
                entries.append((fields, cells, source))
    return entries


def _fields(group: Group, published: Published) -> dict[str, str]:
    dataset = group.record.dataset
    return {
        "dataset": group.dataset_title,
        "protocol": protocol_title(group.protocol, [group], published),
        "strategy": group.title,
        "synthetic": "yes" if dataset.synthetic else "",
    }


def _published(groups: Sequence[Group], published: Published) -> list[Entry]:
    entries: list[Entry] = []
    real = {g.protocol: g for g in groups if not g.record.dataset.synthetic}
    for protocol, group in real.items():
        for method in published.methods_of():
            for level in LEVELS:
                values = [published.value(method.name, protocol, level, s) for s in SUMMARIES]
                if not any(values):
                    continue
                fields = _fields(group, published) | {
                    "strategy": method.title,
                    "level": level,
                    "metric": "AUROC",
                    "kind": "published",
                }
                cells = [Cell() if v is None else Cell(v.percent, sign=v.sign) for v in values]
                papers = "; ".join(sorted({v.paper for v in values if v is not None}))
                entries.append((fields, cells, f"published: {escape(papers)}"))
    return entries


def _head(title: str, first: str = "ascending", definition: str = "") -> str:
    link = f' <a href="#def-{definition}" title="definition">?</a>' if definition else ""
    name = escape(title)
    attributes = f'scope="col" data-first="{first}" data-title="{name}"'
    return f'<th {attributes}><button type="button">{name}</button>{link}</th>'


def _row(fields: Mapping[str, str], cells: Sequence[Cell], source: str) -> str:
    data = "".join(f' data-{name}="{escape(fields[name])}"' for name in (*FILTERS, "kind"))
    badge = f" {BADGE}" if fields["synthetic"] else ""
    texts = f"<td>{escape(fields['dataset'])}{badge}</td><td>{escape(fields['protocol'])}</td>"
    texts += f'<th scope="row">{escape(fields["strategy"])}</th><td class="source">{source}</td>'
    texts += f"<td>{escape(fields['level'])}</td><td>{escape(fields['metric'])}</td>"
    for cell in cells:
        value = "" if cell.value is None else repr(cell.value)
        texts += f'<td class="number" data-value="{value}">{escape(cell_text(cell, True))}</td>'
    return f'<tr class="{escape(fields["kind"])}"{data}>{texts}</tr>\n'


def matrix(run: Run, level: str, metric: str = "auroc") -> str:
    """R of a run as a coloured table: rows are evaluations, columns objects; unseen ones in dashed cells."""
    found = run.matrix(level, metric)
    finite = found.values[~np.isnan(found.values)]
    scale = colour_scale(min(LOWEST, float(finite.min())) if len(finite) else LOWEST)
    heads = [*(o.replace("_", " ") for o in found.objects), "mean of seen"]
    lines = [
        f'<div class="scroll" role="region" aria-label="{escape(level)} matrix" tabindex="0">'
        f'<table class="matrix"><caption><div>{escape(level.capitalize())} '
        f"{escape(METRIC_TITLES.get(metric, metric))} in percent after each experience.</div></caption>",
        '<thead><tr><th scope="col">after</th>'
        + "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
        + "</tr></thead><tbody>",
    ]
    for t, (row, seen) in enumerate(zip(found.values, found.seen)):
        cells = "".join(_shaded(v, scale, "seen" if s else "unseen") for v, s in zip(row, seen))
        cells += _shaded(row[seen].mean(), scale, "mean")
        new = ", ".join(o.replace("_", " ") for o in run.experiences[t])
        label = new if len(run.experiences[t]) <= 2 else f"{len(run.experiences[t])} objects"
        lines.append(f'<tr><th scope="row" title="{escape(new)}">{t + 1}: {escape(label)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def _shaded(value: float, scale: Any, kind: str) -> str:
    if np.isnan(value):
        return '<td class="missing"></td>'
    red, green, blue, _ = (round(255 * c) for c in scale.to_rgba(value))
    ink = "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 128 else "#000"
    style = f"background:rgb({red},{green},{blue});color:{ink}"
    return f'<td class="{kind}" style="{style}">{100 * value:.1f}</td>'


def provenance(run: Run, notes: Sequence[str]) -> str:
    """Where a run's numbers come from: data, weights, software, command, recipe; with its matrices."""
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
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items() if v)
    recipe = escape(json.dumps(info.recipe, indent=1, ensure_ascii=False))
    matrices = "".join(matrix(run, level) for level in LEVELS if "auroc" in run.names(level))
    warnings = "".join(f'<p class="warnings">{escape(note)}</p>' for note in notes)
    badge = f" {BADGE}" if run.synthetic else ""
    return (
        f'<details id="{anchor(run)}"><summary>{escape(run.id)}{badge}</summary>\n{warnings}{matrices}\n'
        f'<dl class="facts">{lines}</dl>\n<details><summary>Recipe</summary><pre>{recipe}</pre></details>'
        "</details>"
    )


def _plain(value: Any) -> str:
    """A mapping from run.json as one line of text."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def definition_list() -> str:
    """Every continual summary with formula and users."""
    items = "".join(
        f'<dt id="def-{escape(name)}">{escape(d.title)} '
        f"({'higher' if d.higher_is_better else 'lower'} is better)</dt>"
        f"<dd>{escape(d.formula)}. Used by: {escape(d.used_by)}.</dd>"
        for name, d in DEFINITIONS.items()
    )
    return f"<dl>{items}</dl>"
