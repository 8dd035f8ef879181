"""Verifies the results in a run directory: recomputes them from its files and compares bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from iufbench.reporting.store import load_run
from iufbench.support.errors import RunError
from iufbench.support.progress import Progress
from iufbench.trust.differences import image_differences, summary_differences
from iufbench.trust.reevaluate import evaluate_run


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

    Raises InputError if the path is not a run directory, RunError for an unfinished or corrupted run, and if
    its data, card, weights or checkpoints are missing.
    """
    run = load_run(path)
    if not run.complete:
        raise RunError(f"{path}: the run is {run.record.status}, not complete: nothing to verify yet")
    from_scores = image_differences(run)
    differences = [*summary_differences(run), *map(str, from_scores)]
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
