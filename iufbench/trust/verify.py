"""Verifies the results in a run directory: recomputes them from its files and compares bit by bit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import RunError
from iufbench.support.nested import differing, flat
from iufbench.support.progress import Progress
from iufbench.trust.reevaluate import Difference, Key, compared, evaluate_run


@dataclass(frozen=True)
class Verdict:
    """``checked``: a line per source of recomputed values; ``differences``: values that differ."""

    checked: list[str]
    differences: list[str]


def verify_run(
    path: Path,
    progress: Progress,
    scores_only: bool = False,
    device: str = "auto",
    data_root: Path | None = None,
    trust_code: bool = False,
) -> Verdict:
    """Recompute the summaries from ``metrics.csv``, the image metrics from ``scores.csv.gz`` and, unless
    ``scores_only``, all metrics and scores from the checkpoints, which needs the data (``trust_code`` as in
    ``plan_again``).

    Raises InputError if the path is not a run directory, RunError for an unfinished or damaged run, and if
    its data, card, weights or checkpoints are missing.
    """
    run = load_run(path)
    if not run.complete:
        raise RunError(f"{path}: the run is {run.record.status}, not complete: nothing to verify yet")
    from_scores = image_differences(run)
    differences = [*_summary_differences(run), *map(str, from_scores)]
    checked = [
        "run.json: summaries recomputed from metrics.csv",
        f"scores.csv.gz: image metrics of {len(run.scores())} scores recomputed",
    ]
    if not scores_only:
        again = evaluate_run(path, progress, device=device, data_root=data_root, trust_code=trust_code)
        differences += map(str, again)
        checked.append(
            f"checkpoints: all metrics and scores of {len(run.experiences)} experiences recomputed"
        )
    return Verdict(checked, differences)


def image_differences(run: Run) -> list[Difference]:
    """Image metrics that differ between ``scores.csv.gz`` and ``metrics.csv`` or are only in one of them."""
    found: dict[int, dict[Key, float]] = defaultdict(dict)
    for experience, name, values in run.image_metrics():
        found[experience] |= {(name, "image", metric): float(value) for metric, value in values.items()}
    # Metrics of subsets (``auroc_sample``, ``auroc_logical``) need more information than the scores.
    alone = ~run.metrics["metric"].str.startswith("auroc_")
    known = run.metrics[(run.metrics["level"] == "image") & alone]
    differences = []
    for number in range(len(run.experiences)):
        rows = known[known["experience"] == number].itertuples()
        stored = {(r.object, "image", r.metric): r.value for r in rows}
        differences += compared(number, stored, found[number])
    return differences


def _summary_differences(run: Run) -> list[str]:
    """Differences between ``run.json`` and ``metrics.csv``."""
    changed = differing(_flat(run.record.summary), _flat(run.summaries())).items()
    return [f"run.json, summary {name}: stored {one!r}, now {other!r}" for name, (one, other) in changed]


def _flat(summary: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """ "level name" -> value; None for NaN, which JSON does not have."""
    return {
        name.replace(".", " ", 1): None if value is None or math.isnan(value) else float(value)
        for name, value in flat(summary).items()
    }
