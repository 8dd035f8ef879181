"""Exports all runs: one tidy table (CSV, Parquet), and each run's matrix in pyCLAD's format."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iufbench.metrics.summaries import DEFINITIONS
from iufbench.reporting.collect import collect
from iufbench.reporting.measured import introduction
from iufbench.reporting.store import LEVELS, Run
from iufbench.reporting.tables.build import warn_on_stderr
from iufbench.support.errors import InputError
from iufbench.support.files import write_bytes, write_csv, write_json

INSTALL = 'pip install "iufbench[parquet]"'
COLUMNS = (
    "run",
    "dataset",
    "synthetic",
    "fingerprint",
    "protocol",
    "strategy",
    "strategy_version",
    "preset",
    "recipe_hash",
    "seed",
    "backbone",
    "image_size",
    "experience",
    "object",
    "introduced",
    "seen",
    "level",
    "metric",
    "value",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
PYCLAD_NAMES = {"auroc": "ROC-AUC", "ap": "Average-Precision", "f1_max": "F1-max"}
PYCLAD_SUMMARIES = {
    "ContinualAverage": "pyclad_average",
    "BackwardTransfer": "pyclad_bwt",
    "ForwardTransfer": "pyclad_fwt",
    "ForgettingMeasure": "pyclad_fm",
}


def export(
    results_dir: Path | str,
    out_dir: Path | str,
    formats: Sequence[str] = ("csv",),
    strict: bool = False,
    warn: Callable[[str], None] = warn_on_stderr,
    for_spreadsheet: bool = False,
) -> list[Path]:
    """Write ``runs.csv`` or ``runs.parquet`` (one row per value) and ``pyclad/<run>.json``.

    Args:
        results_dir: Results folder.
        out_dir: Output folder.
        formats: Any of ``csv`` and ``parquet``.
        strict: Raise RunError if a run is corrupted or inconsistent.
        warn: Called with each warning.
        for_spreadsheet: Put an apostrophe before text in ``runs.csv`` that a spreadsheet would run as a
            formula.

    Returns:
        The files written.

    Raises:
        InputError: There is no complete run, or pyarrow is missing.
    """
    if "parquet" in formats and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"Parquet files need the package pyarrow, which is not installed: {INSTALL}")
    collection = collect(results_dir, strict)
    for line in collection.warnings():
        warn(line)
    out = Path(out_dir)
    rows = [row for run in collection.runs for row in tidy_rows(run)]
    paths = []
    if "csv" in formats:
        quoted = [tuple(map(_no_formula, row)) for row in rows] if for_spreadsheet else rows
        paths.append(write_csv(out / "runs.csv", COLUMNS, quoted))
    if "parquet" in formats:
        data = io.BytesIO()
        pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(data, engine="pyarrow", index=False)
        paths.append(write_bytes(out / "runs.parquet", data.getvalue()))
    for run in collection.runs:
        name = run.id.replace("/", "_")
        paths.append(write_json(out / "pyclad" / f"{name}.json", pyclad(run)))
    return paths


def _no_formula(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would interpret as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def tidy_rows(run: Run) -> list[tuple[Any, ...]]:
    """One row for every value of a run, with its identity; columns as in ``COLUMNS``."""
    info = run.record
    introduced = introduction(run.experiences)
    shared = (
        run.id,
        info.dataset.name,
        info.dataset.synthetic,
        info.dataset.fingerprint,
        info.protocol.id,
        info.strategy.name,
        info.strategy.version,
        info.preset,
        info.recipe_hash,
        info.seed,
        info.backbone.name,
        info.image_size,
    )
    return [
        (
            *shared,
            row.experience,
            row.object,
            introduced[row.object],
            row.seen,
            row.level,
            row.metric,
            row.value,
        )
        for row in run.metrics.itertuples()
    ]


def pyclad(run: Run) -> dict[str, Any]:
    """A run in the layout of pyCLAD's ``JsonOutputWriter`` with ``ConceptMetricCallback`` (2026).

    Rows of ``metric_matrix`` are learnt experiences, columns evaluated objects; an experience with several
    objects is named after all of them. pyCLAD evaluates unseen objects too; without ``--eval-unseen`` these
    entries are absent, and summaries that need them are null.
    """
    info = run.record
    order = ["+".join(objects) for objects in run.experiences]
    if len(set(order)) < len(order):  # a recurring object
        order = [f"{name} ({t})" for t, name in enumerate(order)]
    result: dict[str, Any] = {
        "dataset": {"name": info.dataset.name, "train_concepts_no": len(order)},
        "strategy": {
            "name": info.strategy.name,
            "recipe_hash": info.recipe_hash,
            "seed": info.seed,
        },
        "iufbench_run": run.id,
    }
    for level in LEVELS:
        for metric in run.names(level):
            matrix = run.matrix(level, metric)
            known = ~np.isnan(matrix.values)
            present = run.metrics[(run.metrics["level"] == level) & (run.metrics["metric"] == metric)]
            measured = set(zip(present["experience"], present["object"]))
            name = f"{level}-{PYCLAD_NAMES.get(metric, metric)}"
            result[f"concept_metric_callback_{name}"] = {
                "base_metric_name": name,
                "metrics": {
                    title: DEFINITIONS[summary].function(matrix.values, matrix.introduced)
                    for title, summary in PYCLAD_SUMMARIES.items()
                },
                "concepts_order": order,
                "test_order": list(matrix.objects),
                "metric_matrix": {
                    order[t]: {
                        o: matrix.values[t, i] for i, o in enumerate(matrix.objects) if (t, o) in measured
                    }
                    for t in range(len(order))
                },
                "undefined_concepts": [
                    o
                    for i, o in enumerate(matrix.objects)
                    if any((t, o) in measured and not known[t, i] for t in range(len(order)))
                ],
                "first_seen_step": dict(zip(matrix.objects, matrix.introduced.tolist())),
            }
    return {**result, "train_time": info.seconds.train, "eval_time": info.seconds.evaluate}
