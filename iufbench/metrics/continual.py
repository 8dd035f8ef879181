"""Measures of learning and forgetting from a result matrix, each definition under its own name.

R is float64 [T, O]: R[t, o] is a metric on object o after experience t, NaN where it was not evaluated or is
undefined. ``introduced`` [O] is the experience i(o) in which each object was first trained; T-1 is the last.
A measure that needs a missing entry is NaN: it is never averaged over the available entries only.
With one experience every measure of forgetting is NaN.

A task is an object here. In ``fm_final_tasks``, ``avalanche_*`` and ``pyclad_*`` a task is an experience, as
in Chaudhry 2018 and those libraries (``by_experience``); with one object per experience both are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Introduced = Sequence[int] | np.ndarray
NAN = float("nan")


class Results:
    """R [T, O] and ``introduced`` [O], validated, with what several measures need computed once.

    Every measure takes it as its R. The arrays are shared: do not change them.
    """

    def __init__(self, R: npt.ArrayLike, introduced: Introduced) -> None:
        values, first = np.asarray(R, dtype=np.float64), np.asarray(introduced)
        if values.ndim != 2 or not values.size or first.shape != values.shape[1:]:
            raise ValueError(f"R {values.shape} must be [T, O] and introduced {first.shape} [O]")
        if first.dtype.kind not in "iu" or first.min() < 0 or first.max() >= len(values):
            raise ValueError(f"introduced must be integers from 0 to {len(values) - 1}, not {first.tolist()}")
        self.values = values
        self.introduced = first

    def __array__(self, *arguments: Any, **named: Any) -> np.ndarray:
        return self.values.__array__(*arguments, **named)

    @property
    def past(self) -> np.ndarray:
        """bool [O]: objects that are not of the last experience, which can have been forgotten."""
        return self.introduced < len(self.values) - 1

    @cached_property
    def curve(self) -> np.ndarray:
        """[T] c_t."""
        return np.array([_mean(row[self.introduced <= t]) for t, row in enumerate(self.values)])

    @cached_property
    def drops(self) -> np.ndarray:
        """[T, O] as ``_drops``."""
        return _drops(self.values, self.introduced)

    @cached_property
    def forgetting(self) -> np.ndarray:
        """[T] f_t."""
        return np.array([_mean(row[self.introduced < t]) for t, row in enumerate(self.drops)])

    @cached_property
    def when_new(self) -> np.ndarray:
        """[O] R[i(o), o]."""
        return self.values[self.introduced, np.arange(self.introduced.size)]

    @cached_property
    def bwt(self) -> float:
        """mean of R[T-1, o] - R[i(o), o] over the objects of ``past``."""
        return _mean((self.values[-1] - self.when_new)[self.past])

    @cached_property
    def tasks(self) -> np.ndarray:
        """[T, T] E."""
        R = self.values
        tasks = [np.ascontiguousarray(R[:, self.introduced == e]) for e in range(len(R))]
        means = [np.add.reduce(of, axis=1) / of.shape[1] if of.size else np.full(len(R), NAN) for of in tasks]
        return np.array(means).T


_below = lru_cache(maxsize=8)(np.tril_indices)
_above = lru_cache(maxsize=8)(np.triu_indices)


def results(R: npt.ArrayLike, introduced: Introduced) -> Results:
    """R as ``Results``; raises ValueError if shapes or experiences do not fit."""
    return R if isinstance(R, Results) else Results(R, introduced)


def curve(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[T] c_t = mean of R[t, o] over the objects seen so far, i(o) <= t (the lines of IUF's figures)."""
    return results(R, introduced).curve


def acc(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t of c_t, the base included: ACC of IUF's tables; AIA of Rebuffi 2017."""
    return _mean(curve(R, introduced))


def acc_final(R: npt.ArrayLike, introduced: Introduced) -> float:
    """c_{T-1}: mean over objects of R[T-1, o] (GEM, UCAD, Continual-MEGA)."""
    return float(curve(R, introduced)[-1])


def fm(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t >= 1 of (c_0 - c_t): FM of IUF's tables (fits the printed 10-1 value: 3.24 against 3.2)."""
    c = curve(R, introduced)
    return _mean(c[0] - c[1:])


def forgetting_per_experience(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[T] f_t = mean over objects with i(o) < t of (max over i(o) <= k < t of R[k, o]) - R[t, o]; f_0 NaN."""
    return results(R, introduced).forgetting


def forgetting_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] max over i(o) <= k < T-1 of R[k, o], minus R[T-1, o]; NaN for objects of the last experience."""
    found = results(R, introduced)
    return np.where(found.past, found.drops[-1], NAN)


def bwt_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] R[T-1, o] - R[i(o), o]; NaN for objects of the last experience."""
    found = results(R, introduced)
    return np.where(found.past, found.values[-1] - found.when_new, NAN)


def new_object_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] R[i(o), o], the value right after the object was learnt."""
    return results(R, introduced).when_new


def fm_step(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t >= 1 of f_t (``forgetting_per_experience``): the mean of the per-step mean forgetting."""
    return _mean(forgetting_per_experience(R, introduced)[1:])


def fm_final(R: npt.ArrayLike, introduced: Introduced) -> float:
    """f_{T-1}: best value since learnt and before the end, minus the final one, mean over objects not of the
    last experience (Continual-MEGA). Chaudhry 2018 averages over tasks: ``fm_final_tasks``."""
    return float(forgetting_per_experience(R, introduced)[-1])


def fm_final_tasks(R: npt.ArrayLike, introduced: Introduced) -> float:
    """F_{T-1} of Chaudhry 2018: as ``fm_final`` with an experience, not an object, as the task.

    Mean over e < T-1 of (max over e <= k < T-1 of E[k, e]) - E[T-1, e]. The paper's maximum also covers
    k < e, before the task was learnt; the two differ only where a task was better before it was learnt.
    """
    E = by_experience(R, introduced)
    return _mean(_drops(E, np.arange(len(E)))[-1, :-1])


def fm_best(R: npt.ArrayLike, introduced: Introduced) -> float:
    """As ``fm_final`` but the best includes the final value: never negative (mammoth, PyCIL)."""
    found = results(R, introduced)
    return _mean(np.maximum(found.drops[-1, found.past], 0.0))


def forgetting_first(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of R[i(o), o] - R[T-1, o] over objects not of the last experience; equals -``bwt`` (UCAD)."""
    return -bwt(R, introduced)


def bwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of R[T-1, o] - R[i(o), o] over objects not of the last experience (GEM 2017)."""
    return results(R, introduced).bwt


def fwt(R: npt.ArrayLike, introduced: Introduced, baseline: npt.ArrayLike) -> float:
    """mean of R[i(o)-1, o] - b[o] over objects not of the base experience (GEM, Avalanche).

    baseline: [O] b[o], measured before any training: an untrained detector is far from 0.5.
    """
    found = results(R, introduced)
    before = _per_object(baseline, found, "baselines")
    later = np.flatnonzero(found.introduced > 0)
    return _mean(found.values[found.introduced[later] - 1, later] - before[later])


def new_object(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over all objects of R[i(o), o], the base included. FM alone rewards not learning at all."""
    return _mean(new_object_per_object(R, introduced))


def plasticity(R: npt.ArrayLike, introduced: Introduced, zero_shot: npt.ArrayLike | None = None) -> float:
    """mean over objects not of the base experience of R[i(o), o] - z[o]: what learning an object gained.

    z[o] is the value of a model frozen after the base experience, which has never seen the object.

    Args:
        R: [T, O].
        introduced: i(o) [O].
        zero_shot: [O] z[o]; None: the model's own values after the base experience, R[0, o], which exist if
            unseen objects were evaluated (``--eval-unseen``).
    """
    found = results(R, introduced)
    z = found.values[0] if zero_shot is None else _per_object(zero_shot, found, "zero-shot values")
    return _mean((found.when_new - z)[found.introduced > 0])


def retention(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over objects not of the last experience of R[T-1, o] - R[i(o), o]: equals ``bwt``."""
    return bwt(R, introduced)


def intransigence(R: npt.ArrayLike, introduced: Introduced, reference: npt.ArrayLike) -> float:
    """mean over all objects of a*[o] - R[i(o), o]: the cost of sequential learning for a new object.

    As in Chaudhry 2018, a*[o] is the value on o of a learner trained on all images of the experiences up to
    i(o), such as cumulative training after experience i(o). Negative if the increments learn an object
    better.

    Args:
        R: [T, O].
        introduced: i(o) [O].
        reference: [O] a*[o], in the order of R's columns.
    """
    found = results(R, introduced)
    return _mean(_per_object(reference, found, "reference values") - found.when_new)


def by_experience(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[T, T] E[t, e] = mean of R[t, o] over the objects introduced in e."""
    return results(R, introduced).tasks


def avalanche_forgetting(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over e < T-1 of E[e, e] - E[T-1, e] (Avalanche ``StreamForgetting`` at the end of the stream)."""
    E = by_experience(R, introduced)
    return _mean((E.diagonal() - E[-1])[:-1])


def avalanche_bwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over e < T-1 of E[T-1, e] - E[e, e] (Avalanche ``StreamBWT``)."""
    return -avalanche_forgetting(R, introduced)


def pyclad_average(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of all E[t, e] with e <= t: weights late steps more than ``acc`` (pyCLAD ``ContinualAverage``)."""
    E = by_experience(R, introduced)
    return _mean(E[_below(len(E))])


def pyclad_fm(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over all e of (max over t < T-1 of E[t, e]) - E[T-1, e] (pyCLAD ``ForgettingMeasure``).

    Counts the experience just learnt too, its best being from before learning: needs unseen objects.
    """
    E = by_experience(R, introduced)
    return _mean(E[:-1].max(axis=0) - E[-1]) if len(E) > 1 else NAN


def pyclad_bwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t > e of E[t, e] - E[t-1, e], consecutive rows (pyCLAD ``BackwardTransfer``, its code)."""
    E = by_experience(R, introduced)
    return _mean(np.diff(E, axis=0)[_below(len(E) - 1)])


def pyclad_bwt_documented(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t > e of E[t, e] - E[e, e] (pyCLAD ``BackwardTransfer``, its documentation)."""
    E = by_experience(R, introduced)
    return _mean((E - E.diagonal())[_below(len(E), -1)])


def pyclad_fwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of all E[t, e] with e > t, without a baseline (pyCLAD ``ForwardTransfer``)."""
    E = by_experience(R, introduced)
    return _mean(E[_above(len(E), 1)])


def _per_object(values: npt.ArrayLike, found: Results, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != found.introduced.shape:
        raise ValueError(f"{array.shape} {what} for {found.introduced.size} objects")
    return array


def _mean(values: np.ndarray) -> float:
    # What ``values.mean()`` computes, to the bit, in half the time.
    return float(np.add.reduce(values, axis=None) / values.size) if values.size else NAN


def _drops(R: np.ndarray, introduced: np.ndarray) -> np.ndarray:
    """[T, O] (max over i(o) <= k < t of R[k, o]) - R[t, o], for i(o) < t only; NaN if a value is missing."""
    learnt = introduced <= np.arange(len(R))[:, None]
    best = np.maximum.accumulate(np.where(learnt, R, -np.inf))
    return np.vstack([np.full_like(R[:1], NAN), best[:-1] - R[1:]])
