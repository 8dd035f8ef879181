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

import numpy as np
import numpy.typing as npt

Introduced = Sequence[int] | np.ndarray
NAN = float("nan")


def curve(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[T] c_t = mean of R[t, o] over the objects seen so far, i(o) <= t (the lines of IUF's figures)."""
    R, introduced = _checked(R, introduced)
    return np.array([_mean(row[introduced <= t]) for t, row in enumerate(R)])


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
    R, introduced = _checked(R, introduced)
    return np.array([_mean(row[introduced < t]) for t, row in enumerate(_drops(R, introduced))])


def forgetting_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] max over i(o) <= k < T-1 of R[k, o], minus R[T-1, o]; NaN for objects of the last experience."""
    R, introduced = _checked(R, introduced)
    return np.where(introduced < len(R) - 1, _drops(R, introduced)[-1], NAN)


def bwt_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] R[T-1, o] - R[i(o), o]; NaN for objects of the last experience."""
    R, introduced = _checked(R, introduced)
    last = len(R) - 1
    return np.where(introduced < last, R[last] - _when_new(R, introduced), NAN)


def new_object_per_object(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[O] R[i(o), o], the value right after the object was learnt."""
    return _when_new(*_checked(R, introduced))


def new_object_per_experience(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[T] mean of R[t, o] over the objects introduced in t; from 1 on: how well increments are learnt."""
    R, introduced = _checked(R, introduced)
    return np.array([_mean(row[introduced == t]) for t, row in enumerate(R)])


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
    return _mean(np.maximum(_past(forgetting_per_object(R, introduced), R, introduced), 0.0))


def forgetting_first(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of R[i(o), o] - R[T-1, o] over objects not of the last experience; equals -``bwt`` (UCAD)."""
    return -bwt(R, introduced)


def bwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of R[T-1, o] - R[i(o), o] over objects not of the last experience (GEM 2017)."""
    return _mean(_past(bwt_per_object(R, introduced), R, introduced))


def fwt(R: npt.ArrayLike, introduced: Introduced, baseline: npt.ArrayLike) -> float:
    """mean of R[i(o)-1, o] - b[o] over objects not of the base experience (GEM, Avalanche).

    baseline: [O] b[o], measured before any training: an untrained detector is far from 0.5.
    """
    R, introduced = _checked(R, introduced)
    before = _per_object(baseline, introduced, "baselines")
    later = np.flatnonzero(introduced > 0)
    return _mean(R[introduced[later] - 1, later] - before[later])


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
    R, introduced = _checked(R, introduced)
    z = R[0] if zero_shot is None else _per_object(zero_shot, introduced, "zero-shot values")
    return _mean((_when_new(R, introduced) - z)[introduced > 0])


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
    R, introduced = _checked(R, introduced)
    return _mean(_per_object(reference, introduced, "reference values") - _when_new(R, introduced))


def by_experience(R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """[T, T] E[t, e] = mean of R[t, o] over the objects introduced in e."""
    R, introduced = _checked(R, introduced)
    tasks = [np.ascontiguousarray(R[:, introduced == e]) for e in range(len(R))]
    means = [np.add.reduce(of, axis=1) / of.shape[1] if of.size else np.full(len(R), NAN) for of in tasks]
    return np.array(means).T


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
    return _mean(E[np.tril_indices(len(E))])


def pyclad_fm(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over all e of (max over t < T-1 of E[t, e]) - E[T-1, e] (pyCLAD ``ForgettingMeasure``).

    Counts the experience just learnt too, its best being from before learning: needs unseen objects.
    """
    E = by_experience(R, introduced)
    return _mean(E[:-1].max(axis=0) - E[-1]) if len(E) > 1 else NAN


def pyclad_bwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t > e of E[t, e] - E[t-1, e], consecutive rows (pyCLAD ``BackwardTransfer``, its code)."""
    E = by_experience(R, introduced)
    return _mean(np.diff(E, axis=0)[np.tril_indices(len(E) - 1)])


def pyclad_bwt_documented(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean over t > e of E[t, e] - E[e, e] (pyCLAD ``BackwardTransfer``, its documentation)."""
    E = by_experience(R, introduced)
    return _mean((E - E.diagonal())[np.tril_indices(len(E), -1)])


def pyclad_fwt(R: npt.ArrayLike, introduced: Introduced) -> float:
    """mean of all E[t, e] with e > t, without a baseline (pyCLAD ``ForwardTransfer``)."""
    E = by_experience(R, introduced)
    return _mean(E[np.triu_indices(len(E), 1)])


def _checked(R: npt.ArrayLike, introduced: Introduced) -> tuple[np.ndarray, np.ndarray]:
    values, first = np.asarray(R, dtype=np.float64), np.asarray(introduced)
    if values.ndim != 2 or not values.size or first.shape != values.shape[1:]:
        raise ValueError(f"R {values.shape} must be [T, O] and introduced {first.shape} [O]")
    if first.dtype.kind not in "iu" or first.min() < 0 or first.max() >= len(values):
        raise ValueError(f"introduced must be integers from 0 to {len(values) - 1}, not {first.tolist()}")
    return values, first


def _per_object(values: npt.ArrayLike, introduced: np.ndarray, what: str) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != introduced.shape:
        raise ValueError(f"{found.shape} {what} for {introduced.size} objects")
    return found


def _mean(values: np.ndarray) -> float:
    # What ``values.mean()`` computes, to the bit, in half the time.
    return float(np.add.reduce(values, axis=None) / values.size) if values.size else NAN


def _drops(R: np.ndarray, introduced: np.ndarray) -> np.ndarray:
    """[T, O] (max over i(o) <= k < t of R[k, o]) - R[t, o], for i(o) < t only; NaN if a value is missing."""
    learnt = introduced <= np.arange(len(R))[:, None]
    best = np.maximum.accumulate(np.where(learnt, R, -np.inf))
    return np.vstack([np.full_like(R[:1], NAN), best[:-1] - R[1:]])


def _when_new(R: np.ndarray, introduced: np.ndarray) -> np.ndarray:
    return R[introduced, np.arange(introduced.size)]


def _past(values: np.ndarray, R: npt.ArrayLike, introduced: Introduced) -> np.ndarray:
    """The values of objects that are not of the last experience: those that can have been forgotten."""
    R, introduced = _checked(R, introduced)
    return values[introduced < len(R) - 1]
