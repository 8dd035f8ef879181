"""Which memory scored which image: routing accuracy, and the cost of wrong routing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from iufbench.metrics.curve import score_curve
from iufbench.reporting.measured import introduction
from iufbench.reporting.store import Run


def routes(run: Run) -> bool:
    """Whether the strategy selected, for every test image, the memory that scored it."""
    return bool(run.record.strategy.uses.get("routing"))


def routing(run: Run) -> pd.DataFrame:
    """One row per experience: ``routing_acc``, ``auroc_right``, ``auroc_wrong``, all in [0, 1].

    ``routing_acc`` is the fraction of test images scored by the memory of their own object, averaged over the
    objects seen so far. ``auroc_right`` and ``auroc_wrong`` are image AUROCs over the correctly and wrongly
    routed images: means over the objects for which they are defined (with a normal and a defective image),
    NaN if there is none. Raises KeyError for a run whose strategy does not route.
    """
    scores = run.scores()
    rows = []
    for t in range(len(run.experiences)):
        seen = _seen(run, scores, t)
        right = seen["routed"] == seen["object"]
        rows.append(
            {
                "experience": t,
                "routing_acc": float(right.groupby(seen["object"]).mean().mean()),
                "auroc_right": _mean_auroc(seen[right]),
                "auroc_wrong": _mean_auroc(seen[~right]),
            }
        )
    return pd.DataFrame(rows)


def confusion(run: Run, experience: int = -1) -> tuple[tuple[str, ...], np.ndarray]:
    """The objects seen after ``experience`` (-1: the last), and fractions [O, O] of their images that were
    routed to the memory of each; rows are true objects and sum to 1.
    """
    t = range(len(run.experiences))[experience]
    seen = _seen(run, run.scores(), t)
    found = set(seen["object"])
    objects = tuple(o for o in dict.fromkeys(_product(run, o) for o in run.objects) if o in found)
    counts = pd.crosstab(seen["object"], seen["routed"]).reindex(index=objects, columns=objects, fill_value=0)
    numbers = counts.to_numpy(float)
    return objects, numbers / numbers.sum(axis=1, keepdims=True)


def _seen(run: Run, scores: pd.DataFrame, t: int) -> pd.DataFrame:
    """The scores after experience ``t`` of the objects introduced by then. All levels of a drift count as the
    one object whose memory they share."""
    introduced = introduction(run.experiences)
    seen = scores[(scores["experience"] == t) & (scores["object"].map(introduced) <= t)]
    return seen.assign(**{c: seen[c].map(lambda name: _product(run, name)) for c in ("object", "routed")})


def _product(run: Run, name: str) -> str:
    drift = (run.record.protocol.stream or {}).get("kind") == "drift"
    return name.rpartition("@")[0] if drift and "@" in name else name


def _mean_auroc(images: pd.DataFrame) -> float:
    found = [
        score_curve(part["label"].to_numpy(bool), part["score"].to_numpy()).auroc()
        for _, part in images.groupby("object")
        if part["label"].nunique() == 2
    ]
    return float(np.mean(found)) if found else float("nan")


def last(runs: Sequence[Run], column: str) -> np.ndarray:
    """A column of ``routing`` after the last experience, one value per run."""
    return np.array([float(routing(run)[column].iloc[-1]) for run in runs])
