"""Remarks on the numbers of a run: undefined values with reasons, and the warnings of the run."""

from __future__ import annotations

import numpy as np

from iufbench.data.undefined import undefined_line
from iufbench.reporting.store import LEVELS, Run


def undefined(run: Run, level: str | None = None) -> list[str]:
    """What is undefined in a run (at one level): ``nut: no good test images: image AUROC is undefined; ...``.

    The reason is the one recorded before training; omitted if there is none.
    """
    lines = []
    for one in LEVELS if level is None else (level,):
        if "auroc" not in run.names(one):
            continue
        matrix = run.matrix(one)
        for i in np.flatnonzero((np.isnan(matrix.values) & matrix.seen).any(axis=0)):
            name = matrix.objects[i]
            lines.append(_with_reason(run, name, undefined_line(name, one)))
    return lines


def _with_reason(run: Run, name: str, line: str) -> str:
    end = line.removeprefix(f"{name}: ")
    told = (text for text in run.record.warnings if text.startswith(f"{name}: ") and text.endswith(end))
    return next(told, line)


def remarks(run: Run) -> list[str]:
    """Undefined values of a run, then every other warning that it recorded."""
    return list(dict.fromkeys([*undefined(run), *run.record.warnings]))
