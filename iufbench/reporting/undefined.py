"""What has no value in a run, and why."""

from __future__ import annotations

import numpy as np

from iufbench.reporting.store import LEVELS, SCORES, Run


def undefined(run: Run) -> list[str]:
    """What is undefined in a run and why: ``nut: no good test images: image AUROC is undefined; ...``."""
    lines = []
    for level in LEVELS:
        if "auroc" not in run.names(level):
            continue
        matrix = run.matrix(level)
        for i, name in enumerate(matrix.objects):
            if np.isnan(matrix.values[matrix.seen[:, i], i]).any():
                reason = _reason(run, name)
                lines.append(f"{name}: {reason}{level} AUROC is undefined; {level} ACC and FM stay empty")
    return lines


def _reason(run: Run, name: str) -> str:
    if not (run.path / SCORES).exists():
        return ""
    scores = run.scores()
    labels = set(scores.loc[scores["object"] == name, "label"])
    return {(0,): "no defective test images: ", (1,): "no good test images: "}.get(tuple(labels), "")
