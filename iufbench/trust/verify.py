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
    """Recompute the results in a run directory and compare them bit by bit.

    Summaries are recomputed from ``metrics.csv``, image metrics from ``scores.csv.gz``, and all metrics and
    scores from the checkpoints, which needs the data.

    Args:
        path: Directory of a finished run.
        progress: Shows a bar.
        scores_only: Omit the checkpoints.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Current location of the data, if they were moved.
        trust_code: As for ``plan_again``.

    Returns:
        What was recomputed, and all differences.

    Raises:
        InputError: The path is not a run directory.
        RunError: The run is unfinished or corrupted, or its data, card, weights or checkpoints are missing.
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
