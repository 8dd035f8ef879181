"""The summaries of a result matrix: name, title, formula and users of every measure in ``continual``."""

from __future__ import annotations

import numpy.typing as npt

from iufbench.metrics import continual
from iufbench.metrics.continual import Introduced
from iufbench.metrics.definition import Definition

SEEN = "c_t = mean of R[t,o] over the objects seen by experience t"
DROP = "(max over i(o) <= k < t of R[k,o]) - R[t,o], i(o) = experience that introduced o"
TASK = "E[t,e] = mean of R[t,o] over the objects introduced in e"

DEFINITIONS: dict[str, Definition] = {
    d.name: d
    for d in (
        Definition(
            "acc",
            "ACC",
            f"mean over t of c_t, {SEEN}",
            "IUF's tables; AIA (Rebuffi 2017)",
            True,
            continual.acc,
        ),
        Definition(
            "acc_final",
            "ACC-final",
            "mean over objects of R[T-1,o], after the last experience T-1",
            "GEM, UCAD, Continual-MEGA",
            True,
            continual.acc_final,
        ),
        Definition("fm", "FM", f"mean over t >= 1 of c_0 - c_t, {SEEN}", "IUF's tables", False, continual.fm),
        Definition(
            "fm_step",
            "FM-step",
            f"mean over t >= 1 of the mean over the objects seen before t of {DROP}",
            "IUF's author in words: the mean of the per-step mean forgetting",
            False,
            continual.fm_step,
        ),
        Definition(
            "fm_final",
            "FM-final",
            f"mean over the objects seen before t = T-1, the last experience, of {DROP}",
            "Continual-MEGA; Chaudhry 2018 with an object as a task",
            False,
            continual.fm_final,
        ),
        Definition(
            "fm_final_tasks",
            "FM-final (tasks)",
            f"mean over e < T-1 of (max over e <= k < T-1 of E[k,e]) - E[T-1,e], {TASK}",
            "Chaudhry 2018: mean over tasks, a task being an experience",
            False,
            continual.fm_final_tasks,
        ),
        Definition(
            "fm_best",
            "FM-best",
            "as FM-final with the best value including the final one, never negative",
            "mammoth, PyCIL",
            False,
            continual.fm_best,
        ),
        Definition(
            "forgetting_first",
            "Forgetting (first value)",
            "mean over the objects not of the last experience T-1 of R[i(o),o] - R[T-1,o], equal to -BWT",
            "UCAD",
            False,
            continual.forgetting_first,
        ),
        Definition(
            "bwt",
            "BWT",
            "mean over the objects not of the last experience T-1 of R[T-1,o] - R[i(o),o]",
            "GEM (Lopez-Paz & Ranzato 2017)",
            True,
            continual.bwt,
        ),
        Definition(
            "fwt",
            "FWT",
            "mean over the objects not of the base experience of R[i(o)-1,o] - b[o], b before any training",
            "GEM, Avalanche",
            True,
            continual.fwt,
            needs=("baseline",),
        ),
        Definition(
            "new_object",
            "New-object",
            "mean over objects of R[i(o),o], right after each was learnt",
            "surveys of continual learning (learning accuracy)",
            True,
            continual.new_object,
        ),
        Definition(
            "plasticity",
            "Plasticity",
            "mean over the objects not of the base experience of R[i(o),o] - z[o], z: frozen after the base "
            "(zero-shot): R[0,o] of the same run (--eval-unseen), else the run of `frozen` of the same seed",
            "the learning-forgetting plane (x); 0 for a model that learns nothing new",
            True,
            continual.plasticity,
        ),
        Definition(
            "retention",
            "Retention",
            "mean over the objects not of the last experience T-1 of R[T-1,o] - R[i(o),o], equal to BWT",
            "the learning-forgetting plane (y); 0 for a model that forgets nothing",
            True,
            continual.retention,
        ),
        Definition(
            "intransigence",
            "Intransigence",
            "mean over objects of a*[o] - R[i(o),o], a* from training on all images of the experiences up to "
            "i(o): the run of `cumulative` of the same seed",
            "Chaudhry 2018",
            False,
            continual.intransigence,
            needs=("cumulative",),
        ),
        Definition(
            "avalanche_forgetting",
            "Forgetting (Avalanche)",
            f"mean over e < T-1 of E[e,e] - E[T-1,e], {TASK}",
            "Avalanche StreamForgetting",
            False,
            continual.avalanche_forgetting,
        ),
        Definition(
            "avalanche_bwt",
            "BWT (Avalanche)",
            f"mean over e < T-1 of E[T-1,e] - E[e,e], {TASK}",
            "Avalanche StreamBWT",
            True,
            continual.avalanche_bwt,
        ),
        Definition(
            "pyclad_average",
            "Continual average (pyCLAD)",
            f"mean over all e <= t of E[t,e], {TASK}",
            "pyCLAD ContinualAverage",
            True,
            continual.pyclad_average,
        ),
        Definition(
            "pyclad_fm",
            "FM (pyCLAD)",
            f"mean over all e of (max over t < T-1 of E[t,e]) - E[T-1,e], {TASK}",
            "pyCLAD ForgettingMeasure, last step",
            False,
            continual.pyclad_fm,
        ),
        Definition(
            "pyclad_bwt",
            "BWT (pyCLAD)",
            f"mean over t > e of E[t,e] - E[t-1,e], {TASK}",
            "pyCLAD BackwardTransfer, its code",
            True,
            continual.pyclad_bwt,
        ),
        Definition(
            "pyclad_bwt_documented",
            "BWT (pyCLAD, documented)",
            f"mean over t > e of E[t,e] - E[e,e], {TASK}",
            "pyCLAD BackwardTransfer, its documentation",
            True,
            continual.pyclad_bwt_documented,
        ),
        Definition(
            "pyclad_fwt",
            "FWT (pyCLAD)",
            f"mean over e > t of E[t,e], {TASK}",
            "pyCLAD ForwardTransfer",
            True,
            continual.pyclad_fwt,
        ),
    )
}


MEANS = ("acc", "acc_final", "new_object", "pyclad_average")
"""Summaries of any metric; the others are differences, and defined for metrics of which higher is better."""


def summarise(R: npt.ArrayLike, introduced: Introduced) -> dict[str, float]:
    """Every definition that needs nothing but R, by name, in the order of ``DEFINITIONS``."""
    shared = continual.results(R, introduced)
    return {name: d.function(shared, introduced) for name, d in DEFINITIONS.items() if not d.needs}
