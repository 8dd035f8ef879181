"""Text output for the terminal: lists, cards, plans and results. Imports torch only for a dry run."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from iufbench.cards.datasets import dataset_cards, dataset_content
from iufbench.cards.layers import annotated
from iufbench.cards.protocols import find_protocol, protocol_cards, resolve_protocol
from iufbench.cards.registry import card_paths, find_card, foreign_code, load_class
from iufbench.cards.strategies import StrategyCard, load_strategy
from iufbench.cards.yaml_files import read_yaml
from iufbench.data.datasets import default_root, known_objects
from iufbench.data.undefined import undefined_lines
from iufbench.engine.plan import BeforeCode, Plan, image_counts, iterations
from iufbench.metrics import drift, summaries, values
from iufbench.metrics.aggregate import AGGREGATES
from iufbench.reporting.collect import changed_files
from iufbench.reporting.drift import explanation, threshold_rows
from iufbench.reporting.relative import knows_unseen
from iufbench.reporting.store import LEVELS, Run, find_runs, load_run
from iufbench.reporting.tables.build import warn_on_stderr
from iufbench.reporting.tables.results import METRIC_TITLES
from iufbench.reporting.undefined import remarks, undefined
from iufbench.support.errors import InputError, RunError, one_line
from iufbench.support.fields import suggest


def columns(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows with equal keys as aligned text with a header line."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    table = [names, *[[_cell(row[n]) for n in names] for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(names))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return one_line(", ".join(map(str, value)))
    return one_line(value)  # before columns are aligned


def protocol_rows() -> list[dict[str, Any]]:
    return [
        {
            "protocol": p.id,
            "title": p.title,
            "objects": "+".join(str(len(e)) for e in p.experiences),
            "aliases": list(p.aliases),
        }
        for p in protocol_cards().values()
    ]


def strategy_rows() -> list[dict[str, Any]]:
    return [
        {"strategy": name, "title": card.title, "description": card.content.get("description", "")}
        for name, card in ((n, load_strategy(n)) for n in card_paths("strategy"))
    ]


def dataset_rows() -> list[dict[str, Any]]:
    return [
        {
            "dataset": c.name,
            "title": c.title,
            "objects": len(c.objects),
            "images": sum(n for counts in c.counts.values() for n in counts.values()) or "unknown",
            "masks": "yes" if c.masks else "no",
            "here": _place_of(c.name),
            "licence": c.licence,
        }
        for c in dataset_cards().values()
    ]


def _place_of(name: str) -> str:
    """Where a data set is on this machine, according to ``$IUFBENCH_DATA`` and installed packages."""
    root = default_root(name)
    if root is not None and root.is_dir():
        return str(root)
    return "package" if name == "elpv" and importlib.util.find_spec("elpv_dataset") else "no"


def run_rows(results: Path, warn: Callable[[str], None] = warn_on_stderr) -> list[dict[str, Any]]:
    """One row per run directory below ``results``; skipped ones are passed to ``warn`` with the reason."""
    runs, damaged = find_runs(results, include_incomplete=True)
    for path, reason in damaged:
        warn(f"skipped {path}: {reason}")
    rows = []
    shown = {name: summaries.DEFINITIONS[name].function for name in ("acc", "acc_final", "fm")}
    for run in runs:
        image = {}
        if run.complete and "auroc" in run.names("image"):
            matrix = run.matrix("image")
            image = {n: summary(matrix.values, matrix.introduced) for n, summary in shown.items()}
        rows.append(
            {
                "run": run.id,
                "status": run.record.status,
                "image ACC": image.get("acc", math.nan),
                "image ACC-final": image.get("acc_final", math.nan),
                "image FM": image.get("fm", math.nan),
                "note": "; ".join(_notes(run)),
                "path": str(run.path),
            }
        )
    nothing = {"image ACC": math.nan, "image ACC-final": math.nan, "image FM": math.nan, "note": ""}
    rows += [{"run": "?", "status": "corrupted", **nothing, "path": str(path)} for path, _ in damaged]
    return rows


def _notes(run: Run) -> list[str]:
    if not run.complete:
        return run.record.warnings
    try:
        return [*changed_files(run), *remarks(run)]
    except RunError as error:  # a result file is not a regular file
        return [str(error), *remarks(run)]


def content_of(kind: str, name: str, before_code: BeforeCode = lambda text: None) -> dict[str, Any]:
    """The content of a card or a run directory.

    A strategy card is merged with what it extends and has the additional keys ``uses`` (the declaration of
    its learner, which is imported: ``before_code`` as for ``engine.plan.prepare``) and ``sources`` (the card
    each value comes from).
    """
    if kind == "run":
        return load_run(name).info
    if kind == "strategy":
        card = load_strategy(name)
        sources = {".".join(path): source for path, source in card.sources.items()}
        return {**card.content, "uses": _declared(card, before_code), "sources": sources}
    if kind == "protocol":
        dataset, protocol = find_protocol(name)
        if protocol is None:  # it has no card
            made = dataclasses.asdict(resolve_protocol(name, known_objects(dataset, None)))
            return {key: list(map(list, v)) if key == "experiences" else v for key, v in made.items() if v}
        name = protocol.id
    if kind == "dataset":
        return dataset_content(find_card(kind, name))
    return read_yaml(find_card(kind, name))


def _declared(card: StrategyCard, before_code: BeforeCode) -> dict[str, Any]:
    """The learner's ``uses``; imports the learner and therefore torch."""
    target = card.content.get("learner")
    if not isinstance(target, str):
        raise InputError(f"{card.path}: the key 'learner' is missing")
    foreign = foreign_code(target, card.path)
    if foreign:
        before_code(foreign)
    learner = load_class(target, card.path)
    if not hasattr(learner, "uses"):
        raise InputError(f"{card.path}: learner '{target}' is not a strategy: it has no 'uses'")
    return dict(vars(learner.uses))


def as_text(kind: str, name: str, content: dict[str, Any]) -> str:
    if kind == "run":
        return describe_results(load_run(name))
    if kind == "strategy":
        shown = {key: value for key, value in content.items() if key != "sources"}
        return "\n".join(annotated(shown, load_strategy(name).sources))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100).rstrip()


def describe_plan(plan: Plan) -> str:
    """The resolved run: data counts, parameters, estimated iterations, recipe. For ``--dry-run``."""
    counts = image_counts(plan)
    train = plan.train_counts
    steps = iterations(plan, train) if plan.learner.uses.gradients else [0] * len(train)
    lines = [f"run        {plan.id}", f"directory  {plan.path}", f"data       {plan.dataset.root}", ""]
    rows = [
        {"experience": t, "objects": group, "train images": n, "iterations": k}
        for t, (group, n, k) in enumerate(zip(plan.experiences, train, steps))
    ]
    tests = sum(c["test"] for c in counts.values())
    lines += [columns(rows), "", f"test images {tests}; training iterations {sum(steps)}"]
    card, data = plan.dataset_card, plan.dataset
    differing = [] if card is None or data.synthetic else card.differing(data.counts())
    lines += [f"warning: {line}" for line in (*undefined_lines(data, plan.protocol.objects), *differing)]
    from iufbench.engine.assembly import parameter_counts

    numbers = parameter_counts(plan)
    lines.append(
        f"parameters {numbers['parameters_total']:,} in all, {numbers['parameters_trainable']:,} trainable "
        "(backbone not counted)"
    )
    recipe = {k: v for k, v in plan.recipe.as_dict().items() if k != "provenance"}
    lines += ["", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100).rstrip()]
    return "\n".join(lines)


def _shown(value: float) -> str:
    """A measured value: undefined is not the same as not measured."""
    return _cell(float(value)) or "undefined"


FROZEN_ROW = "frozen: the model after experience 0 on every object, learnt or not"


def describe_results(run: Run) -> str:
    """The matrix R of image and pixel AUROC and its summaries, as text.

    If unseen objects were evaluated, the row "frozen" follows: the results of the same model on all objects
    after the base experience.
    """
    if not run.complete:
        raise InputError(f"{run.path}: the run is {run.record.status}, not complete")
    blocks = [f"{run.record.protocol.label} | {run.record.label} | seed {run.seed}"]
    if run.synthetic:
        blocks[0] += " | SYNTHETIC data"
    for level, summary in run.summaries().items():
        matrix = run.matrix(level)
        rows = []
        for t, row in enumerate(matrix.values):
            seen = [_shown(v) if matrix.seen[t, i] else "" for i, v in enumerate(row)]
            mean = _shown(row[matrix.seen[t]].mean())
            rows.append({"after": t, **dict(zip(matrix.objects, seen)), "mean": mean})
        if knows_unseen(run, level):
            base = matrix.values[0]
            rows.append({"after": "frozen", **dict(zip(matrix.objects, base)), "mean": base.mean()})
        shown = ("acc", "acc_final", "fm", "fm_final", "new_object", "plasticity", "retention")
        numbers = ", ".join(
            f"{n} {summary[n]:.3f}" for n in shown if not math.isnan(summary.get(n, math.nan))
        )
        blocks += [
            f"\n{level} AUROC of every object seen so far, after each experience",
            columns(rows),
            *([FROZEN_ROW] if knows_unseen(run, level) else []),
            *([numbers] if numbers else []),
        ]
    if run.record.thresholds is not None:
        blocks += [
            f"\nthresholds ({run.record.thresholds.rule}), frozen when learnt",
            columns(threshold_rows(run)),
        ]
    lines = [f"warning: {text}" for text in remarks(run)]
    return "\n".join([*blocks, *([""] if lines else []), *lines])


def explain_metric(name: str, path: Path | None) -> str:
    """Definition, formula and users of a metric or summary, with its values on a run.

    ``name`` may also be the title used in tables, in upper or lower case. Raises InputError with suggestions
    for an unknown name.
    """
    known = {**summaries.DEFINITIONS, **drift.DEFINITIONS, **values.DEFINITIONS, **AGGREGATES}
    titles = {d.title.lower(): key for key, d in known.items()}
    name = name if name in known else titles.get(name.lower(), name.lower())
    if name in COSTS:
        kept = (
            []
            if path is None
            else ["", f"on {(run := load_run(path)).id}: {getattr(run.record.costs, name)}"]
        )
        return "\n".join([f"{name}: {COSTS[name]}", *kept])
    if name not in known:
        known_names = [*known, *COSTS]
        raise InputError(
            f"unknown metric '{name}'{suggest(name, known_names)} (known: {', '.join(known_names)})"
        )
    d = known[name]
    better = "higher is better" if d.higher_is_better else "lower is better"
    lines = [f"{name}: {d.title} ({better})", "", f"  {d.formula}", "", f"used by: {d.used_by}"]
    if name in BY_HAND:
        lines += ["", BY_HAND[name]]
    if path is not None:
        run = load_run(path)
        lines += ["", f"on {run.id}" + (" (SYNTHETIC data)" if run.synthetic else "")]
        if name in BY_HAND:
            lines.append("  not recorded")
        elif name in drift.DEFINITIONS:
            lines += explanation(run, name)
        else:
            lines += _summary_on(run, name) if name in summaries.DEFINITIONS else _values_on(run, name)
    return "\n".join(lines)


COSTS = {
    "bytes_kept": (
        "what is carried from one experience to the next (lower is better)\n\n"
        "  bytes of all tensors that the next experience needs beside the deployed network's weights, after\n"
        "  each experience: stored images and features, importances, old weights and copies of the network\n"
        "  (LwF's teacher, the weights that IUF pulls to), feature matrices, projections, bases, banks\n\n"
        "Computed from the learner's state in the same way for every method. Not counted: the network\n"
        "itself, gradients, the optimiser, the images of the experience that is trained."
    )
}
OF_SEVERAL = "It compares several runs: iufbench tables, report and board show it."
BY_HAND = {
    **dict.fromkeys(AGGREGATES, OF_SEVERAL),
    "aupimo": (
        "Runs do not record it. From masks and float32 maps of an object, in Python:\n"
        '  iufbench.metrics.pixel.pixel_metrics(masks, maps, aupimo=True)["aupimo"]\n'
        "`iufbench evaluate RUN --save-maps` keeps a run's maps, rounded to float16."
    ),
    "intransigence": (
        "Runs do not record it, because it compares two of them. Tables show it where `cumulative` was run\n"
        "on the same data with the same protocol, preset and seed. In Python, with reference[o] = the value\n"
        "of o after its experience in the run of `cumulative`:\n"
        "  iufbench.metrics.continual.intransigence(R, introduced, reference)"
    ),
}
"""Metrics that are not in ``metrics.csv``, and how to compute them."""
NOT_MEASURED = "it needs a value that was not measured (unseen objects: iufbench run --eval-unseen)"


def _summary_on(run: Run, name: str) -> list[str]:
    """A continual learning summary at each level, for every recorded metric."""
    lines = []
    for level in LEVELS:
        names = [m for m in run.names(level) if name in summaries.MEANS or not values.falls(m)]
        found = {m: run.summary(level, m).get(name, math.nan) for m in names}
        cells = [f"{_cell(v) or 'undefined'} ({METRIC_TITLES.get(m, m)})" for m, v in found.items()]
        if found:
            lines.append(f"  {level}: {', '.join(cells)}")
        if any(map(math.isnan, found.values())):
            lines += [f"    {reason}" for reason in undefined(run, level) or [NOT_MEASURED]]
    return lines


def _values_on(run: Run, metric: str) -> list[str]:
    """A metric of every object after the last experience."""
    lines = []
    for level in LEVELS:
        if metric in run.names(level):
            last = run.matrix(level, metric).values[-1]
            text = ", ".join(f"{o} {_cell(float(v)) or 'undefined'}" for o, v in zip(run.objects, last))
            lines.append(f"  {level}, after the last experience: {text}")
    return lines or ["  not measured"]
