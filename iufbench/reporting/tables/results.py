"""Tables of results beside published values, in the paper's layout, and the ablation table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from iufbench.metrics.summaries import DEFINITIONS
from iufbench.metrics.values import DEFINITIONS as METRICS
from iufbench.reporting.groups import Group, setting
from iufbench.reporting.literature import Method, Published, PublishedValue, source_lines
from iufbench.reporting.tables.table import Cell, Column, Row, Table, footnote_marks, mark_best, measured

LEVEL_TITLES = {"image": "image level", "pixel": "pixel level"}
METRIC_TITLES = {name: d.title for name, d in METRICS.items()}
MATRIX = ("R[t,o]", "the metric on object o after experience t, experiences counted from 0")
Notes = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Quantity:
    """The content of one column."""

    protocol: str
    level: str
    summary: str
    metric: str = "auroc"


def heading(summary: str) -> str:
    """The short name of a continual summary with an arrow in the direction of better values."""
    definition = DEFINITIONS[summary]
    return f"{definition.title} {'↑' if definition.higher_is_better else '↓'}"


def definitions(summaries: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Title and definition of each summary, for a caption, after the definition of R."""
    found = [DEFINITIONS[name] for name in dict.fromkeys(summaries)]
    entries = [(d.title, f"{d.formula} ({d.used_by})") for d in found]
    return (MATRIX, *entries) if entries else ()


def protocol_title(protocol: str, groups: Sequence[Group], published: Published) -> str:
    """The paper's name of a protocol, else the runs', else its id; with the order if not the default."""
    base, _, order = protocol.partition("+")
    if base in published.protocols:
        title = published.protocols[base][1]
    else:
        found = [g.record.protocol for g in groups if g.protocol.partition("+")[0] == base]
        title = next((protocol.label for protocol in found if protocol.title), base)
    return f"{title}, order {order.removeprefix('order')}" if order else title


def result_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """Per data set and level: strategies x protocols, ACC and FM, published rows beside measured ones.

    Protocols without published values, and synthetic data, have separate tables.
    """
    tables = []
    for dataset, members in _by_dataset(groups).items():
        info = members[0].record.dataset
        family = members[0].protocol.partition("_")[0]
        known = [p for p in published.protocols if p.partition("_")[0] == family]
        ran = sorted(dict.fromkeys(g.protocol for g in members), key=lambda p: "+" in p)
        if info.synthetic:
            sets = [("", [p for p in known if p in ran] + [p for p in ran if p not in known], False)]
        else:
            sets = [
                ("", known if set(known) & set(ran) else [], True),
                ("_other", [p for p in ran if p not in known], False),
            ]
        for suffix, protocols, beside in sets:
            for level in ("image", "pixel"):
                if not protocols or not any(g.runs[0].names(level) for g in members):
                    continue
                quantities = [Quantity(p, level, s) for p in protocols for s in ("acc", "fm")]
                title = members[0].dataset_title
                tables.append(
                    comparison(
                        f"results_{dataset}{suffix}_{level}",
                        f"{title}: ACC and FM, {LEVEL_TITLES[level]}",
                        f"{level.capitalize()}-level AUROC",
                        quantities,
                        members,
                        published,
                        published.methods_of() if beside else _unpublished(published.methods_of()),
                        notes,
                    )
                )
    return tables


def ablation_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """The contribution of each component: rows of the published ablation, with measured values of runs.

    Only for data sets and protocols on which one of the reduced strategies was run.
    """
    methods = published.methods_of(ablation=True)
    reduced = {s for m in methods if m.ablation != "full" for s in m.strategies}
    names = {s for m in methods for s in m.strategies}
    tables = []
    for dataset, members in _by_dataset(groups).items():
        for protocol in dict.fromkeys(g.protocol for g in members if g.strategy in reduced):
            chosen = [g for g in members if g.protocol == protocol and g.strategy in names]
            synthetic = members[0].record.dataset.synthetic
            levels = [level for level in ("image", "pixel") if chosen[0].runs[0].names(level)]
            tables.append(
                comparison(
                    f"ablation_{dataset}_{protocol}",
                    f"Ablation on {chosen[0].dataset_title}, {protocol_title(protocol, members, published)}",
                    "AUROC",
                    [Quantity(protocol, level, s) for level in levels for s in ("acc", "fm")],
                    chosen,
                    published,
                    _unpublished(methods) if synthetic else methods,
                    notes,
                )
            )
    return tables


def one_by_one_tables(groups: Sequence[Group], published: Published, notes: Notes) -> list[Table]:
    """Streams of single objects beside the values of later papers, after the last object."""
    tables = []
    for dataset, members in _by_dataset(groups).items():
        if members[0].record.dataset.synthetic:
            continue
        for protocol in dict.fromkeys(g.protocol for g in members):
            methods = published.one_by_one_methods(protocol)
            if methods:
                quantities = [
                    Quantity(protocol, "image", "acc_final"),
                    Quantity(protocol, "pixel", "acc_final", "ap"),
                ]
                title = f"{members[0].dataset_title}: objects one by one"
                name = f"one_by_one_{dataset}"
                subject = "Image-level AUROC and pixel-level AP after the last object,"
                tables.append(
                    comparison(name, title, subject, quantities, members, published, methods, notes)
                )
    return tables


def _unpublished(methods: Sequence[Method]) -> list[Method]:
    """The same order of strategies, without published rows beside them."""
    return [Method("", m.title, m.strategies, m.ablation) for m in methods]


def _by_dataset(groups: Sequence[Group]) -> dict[str, list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.dataset, []).append(group)
    return found


@dataclass(frozen=True)
class Line:
    """The groups that share one row: one recipe, or the recipes of a strategy with one per protocol."""

    label: str
    groups: tuple[Group, ...]

    def cell(self, quantity: Quantity) -> Cell:
        for group in self.groups:
            if group.protocol == quantity.protocol:
                return measured(group.values(quantity.level, quantity.metric, quantity.summary), 100)
        return Cell()


def lines_of(groups: Sequence[Group]) -> list[Line]:
    """Rows for one strategy's groups on one data set.

    A recipe may differ from protocol to protocol (published schedules do), so groups of one setting share
    a row as long as no protocol has two of them; otherwise every recipe has a separate row.
    """
    lines = []
    settings: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        settings.setdefault((*setting(group.runs[0]), group.joint), []).append(group)
    for members in settings.values():
        clash = len({g.protocol for g in members}) < len(members)
        parts: dict[str, list[Group]] = {}
        for group in members:
            parts.setdefault(group.recipe_hash if clash else "", []).append(group)
        lines += [Line(_recipe_label(part), tuple(part)) for part in parts.values()]
    return lines


def _recipe_label(groups: Sequence[Group]) -> str:
    hashes = list(dict.fromkeys(g.recipe_hash for g in groups))
    backbone = groups[0].record.backbone
    words = [groups[0].preset, hashes[0] if len(hashes) == 1 else f"{len(hashes)} recipes"]
    if backbone.random:
        words.append("random weights")
    return " ".join(word for word in words if word)


def comparison(
    name: str,
    title: str,
    subject: str,
    quantities: Sequence[Quantity],
    groups: Sequence[Group],
    published: Published,
    methods: Sequence[Method],
    notes: Notes,
) -> Table:
    """One table of continual summaries in percent: measured rows, published rows, and their difference.

    Bounds come first, then ``methods`` in their order with the published rows, then all others by family.
    """
    synthetic = groups[0].record.dataset.synthetic
    wanted = {q.protocol for q in quantities}
    groups = [g for g in groups if g.protocol in wanted]
    rows: list[Row] = []
    footnotes: list[tuple[Line, str]] = []
    sources: list[PublishedValue] = []
    caveats: list[str] = []
    named = {s for m in methods for s in m.strategies}
    unnamed = sorted({(*g.rank, g.title) for g in groups if g.strategy not in named})
    others = [(rank, Method("", title, (strategy,), "")) for rank, _, strategy, title in unnamed]
    bounds = [method for rank, method in others if rank == 0]
    order = [*bounds, *methods, *(method for rank, method in others if rank > 0)]
    marks = iter(footnote_marks(len(groups) + 1))
    for method in order:
        values = [published.value(method.name, q.protocol, q.level, q.summary, q.metric) for q in quantities]
        found = [v for v in values if v is not None]
        if found:
            sources += found
            caveats += _caveats(_label(method, method.title), quantities, values, groups, published)
            cells = tuple(Cell() if v is None else Cell(v.percent, sign=v.sign) for v in values)
            rows.append(Row((_label(method, method.title), "published"), cells, "published"))
        for strategy in method.strategies:
            for line in lines_of([g for g in groups if g.strategy == strategy]):
                mark = next(marks)
                footnotes.append((line, mark))
                cells = tuple(line.cell(q) for q in quantities)
                labels = (
                    _label(method, method.title if method.ablation else line.groups[0].title),
                    line.label,
                )
                rows.append(Row(labels, cells, "ours", not line.groups[0].joint, mark))
                if found and (difference := _difference(cells, values)):
                    rows.append(Row((labels[0], "difference"), difference, "difference"))
    columns = [_column(q, quantities, groups, published) for q in quantities]
    return Table(
        name=name,
        title=title,
        caption=_caption(subject, sources, synthetic),
        definitions=definitions(q.summary for q in quantities),
        label_columns=("Strategy", "Source"),
        columns=tuple(columns),
        rows=mark_best(columns, rows),
        footnotes=tuple((mark, _footnote(line, notes, wanted)) for line, mark in footnotes)
        + tuple(("", text) for text in [*source_lines(sources), *caveats]),
        synthetic=synthetic,
    )


def _label(method: Method, title: str) -> str:
    return f"{title}, {method.ablation}" if method.ablation else title


def _column(
    quantity: Quantity, quantities: Sequence[Quantity], groups: Sequence[Group], published: Published
) -> Column:
    above = protocol_title(quantity.protocol, groups, published)
    if len({(q.level, q.metric) for q in quantities}) > 1:
        above = f"{LEVEL_TITLES[quantity.level]}, {METRIC_TITLES.get(quantity.metric, quantity.metric)}"
    return Column(heading(quantity.summary), above, DEFINITIONS[quantity.summary].higher_is_better)


def _difference(cells: Sequence[Cell], values: Sequence[PublishedValue | None]) -> tuple[Cell, ...]:
    found = tuple(
        Cell(cell.value - value.percent, sign=value.sign, signed=True)
        if value is not None and cell.value is not None
        else Cell()
        for cell, value in zip(cells, values)
    )
    return found if any(cell.value is not None for cell in found) else ()


def _caption(subject: str, sources: Sequence[PublishedValue], synthetic: bool) -> str:
    parts = [
        f"{subject} in percent: mean ± sample standard deviation over seeds (number of seeds).",
        "Incomplete results are left empty.",
    ]
    if sources:
        parts.append(
            "Best measured and best published value of a column in bold; "
            "difference: measured minus published, in percentage points."
        )
    else:
        parts.append("Best value of a column in bold.")
    if synthetic:
        parts.append("Synthetic data: not comparable with any published value.")
    return " ".join(parts)


def _footnote(line: Line, notes: Notes, wanted: set[str]) -> str:
    groups = [g for g in line.groups if g.protocol in wanted]
    parts = ["runs " + "; ".join(g.ids for g in groups), groups[0].scoring]
    if groups[0].joint:
        parts.append("trained on all objects at once, so there is one evaluation and no forgetting")
    parts += [f"{run.id}: {note}" for g in groups for run in g.runs for note in notes.get(run.id, ())]
    return ". ".join(parts)


def _caveats(
    label: str,
    quantities: Sequence[Quantity],
    values: Sequence[PublishedValue | None],
    groups: Sequence[Group],
    published: Published,
) -> list[str]:
    """Caveats of the published values of a row, each once, with the first value it applies to."""
    texts: dict[str, str] = {}
    for quantity, value in zip(quantities, values):
        if value is not None and value.caveat:
            place = f"{protocol_title(quantity.protocol, groups, published)}, {LEVEL_TITLES[quantity.level]}"
            name = DEFINITIONS[quantity.summary].title
            texts.setdefault(value.caveat, f"{label}, {place}, {name} {value.percent:.1f}: {value.caveat}")
    return list(texts.values())
