"""The summary table of a sweep: means, standard deviations and numbers of seeds of every recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iufbench.engine.describe import columns
from iufbench.reporting.groups import group_runs
from iufbench.reporting.store import load_run
from iufbench.reporting.tables.table import measured
from iufbench.support.errors import InputError, RunError

SHOWN = (("image", "acc"), ("image", "fm"), ("pixel", "acc"), ("pixel", "fm"))


def summary_table(paths: Sequence[Path]) -> str:
    """Summarise complete runs with the numbers of ``iufbench tables``.

    Args:
        paths: Run directories; unreadable ones are named below the table.

    Returns:
        One row per data set, protocol and recipe: ACC and FM of the AUROC in percent, mean ± sample standard
        deviation over n seeds.
    """
    runs, lines = [], []
    for path in paths:
        try:
            run = load_run(path)
        except (InputError, RunError) as error:
            lines.append(f"skipped: {error}")
            continue
        if run.complete:
            runs.append(run)
    rows = []
    for group in group_runs(runs):
        row = {
            "data set": group.dataset,
            "protocol": group.protocol,
            "strategy": group.strategy,
            "recipe": f"{group.preset} {group.recipe_hash}",
            "n": str(len(group.runs)),
        }
        for level, summary in SHOWN:
            row[f"{level} {summary.upper()}"] = _text(group.values(level, "auroc", summary))
        rows.append(row)
    title = "AUROC in percent, mean ± sample standard deviation over n seeds"
    if any(run.synthetic for run in runs):
        title += "; data sets named -synthetic are SYNTHETIC"
    return "\n".join([title, columns(rows), *lines])


def _text(values: np.ndarray) -> str:
    cell = measured(values, scale=100)
    if cell.value is None:
        return ""
    return f"{cell.value:.1f}" if cell.sd is None else f"{cell.value:.1f} ± {cell.sd:.1f}"
