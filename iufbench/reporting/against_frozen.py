"""Whether a strategy is better than a model that was frozen after the base experience."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iufbench.metrics.statistics import sign_flip_p
from iufbench.reporting.groups import FROZEN, Group
from iufbench.reporting.store import Run

SIGNIFICANT = 0.05
BETTER, NOT_BETTER = "better than frozen", "not better than frozen"
TOO_FEW = "too few objects to tell from frozen"


@dataclass(frozen=True)
class AgainstFrozen:
    """Paired comparison of AUROC after the last experience, object by object, with the strategy ``frozen``.

    ``gain``: mean difference over ``objects``, each a mean over ``seeds`` common seeds; ``p_value``:
    one-sided sign-flip test over objects that the gain is positive (NaN with fewer than two objects).
    """

    gain: float
    p_value: float
    objects: int
    seeds: int

    @property
    def verdict(self) -> str:
        """``BETTER`` or ``NOT_BETTER``, or ``TOO_FEW`` objects for any test."""
        if self.p_value < SIGNIFICANT:
            return BETTER
        if self.gain > 0 and 0.5**self.objects >= SIGNIFICANT:
            return TOO_FEW
        return NOT_BETTER

    @property
    def text(self) -> str:
        """The verdict with its numbers."""
        p = "" if np.isnan(self.p_value) else f", p = {self.p_value:.3f}"
        return f"{self.verdict} ({100 * self.gain:+.1f} points over {self.objects} objects{p})"


def against_frozen(group: Group, level: str) -> AgainstFrozen | None:
    """Compare two groups at one level; None for ``frozen`` itself, or if there is nothing to compare."""
    if group.strategy == FROZEN or FROZEN not in group.references:
        return None
    pairs = [(run, group.reference(FROZEN, run.seed)) for run in group.runs]
    found = [
        [value - theirs[name] for name, value in ours.items()]
        for run, frozen in pairs
        if frozen is not None and (ours := final(run, level)) and (theirs := final(frozen, level))
    ]
    differences = np.mean(found, axis=0) if found else np.array([])
    if not differences.size or np.isnan(differences).any():
        return None
    p = sign_flip_p(differences.tolist(), "greater")
    return AgainstFrozen(float(differences.mean()), p, len(differences), len(found))


def final(run: Run, level: str) -> dict[str, float]:
    """Object -> AUROC after the last experience; empty if the level was not evaluated."""
    if "auroc" not in run.names(level):
        return {}
    matrix = run.matrix(level)
    return dict(zip(matrix.objects, matrix.values[-1]))
