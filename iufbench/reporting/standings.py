"""Ranks strategies on one protocol over objects and seeds, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from iufbench.metrics.aggregate import (
    NAN,
    Estimate,
    best_first_ranks,
    improvement,
    iqm_estimate,
    rank_intervals,
)
from iufbench.reporting.groups import FINETUNE, FROZEN, Group

RIVALS = (FROZEN, FINETUNE)  # with which every strategy is compared
DECIMALS = 3  # of a mean in [0, 1] that decide about a rank: those that are printed in percent
NOTHING = Estimate(NAN, NAN, NAN)


@dataclass(frozen=True)
class Standing:
    """A strategy in the ranking by ACC-final of one level and metric.

    ``values``: R[T-1, o] float64 [seeds, objects], None if one is missing or undefined. ``rank`` is None
    without values and for joint training, which solves an easier task; its 95 % interval ``ranks`` also with
    a single seed. ``better``: probability of improvement over each of ``RIVALS`` under the same conditions.
    """

    group: Group
    values: np.ndarray | None
    rank: int | None = None
    ranks: tuple[int, int] | None = None
    iqm: Estimate = NOTHING
    better: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """ACC-final: the mean over objects and seeds; NaN without values."""
        return NAN if self.values is None else float(self.values.mean())

    @property
    def interval(self) -> str:
        """The interval of the rank: ``2 to 4``, or one number; empty without one."""
        low, high = self.ranks or ("", "")
        return str(low) if low == high else f"{low} to {high}"


def streams(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups that may share a ranking: the same data, version of scores, protocol and experiences.

    Joint training, which has a single experience, is in every ranking of its protocol.
    """
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.dataset, group.protocol), []).append(group)
    parts = []
    for members in found.values():
        several = dict.fromkeys(order_of(g) for g in members if not g.joint)
        parts += [[g for g in members if g.joint or order_of(g) == order] for order in several or (None,)]
    return parts


def order_of(group: Group) -> tuple[tuple[str, ...], ...]:
    """The objects of every experience."""
    return tuple(map(tuple, group.runs[0].experiences))


def standings(groups: Sequence[Group], level: str, metric: str = "auroc") -> list[Standing]:
    """Rank the groups of one of ``streams`` that have the metric by ACC-final; those without one are last.

    Equal printed means share a rank.
    """
    pairs = final_values(groups, level, metric)
    groups = [g for g, _ in pairs]
    known = {id(g): v for g, v in pairs if v is not None}
    ranked = {id(g): known[id(g)] for g in groups if id(g) in known and not g.joint}
    means = [round(float(v.mean()), DECIMALS) for v in ranked.values()]
    ranks = dict(zip(ranked, best_first_ranks(means).tolist() if means else ()))
    intervals = dict(zip(ranked, rank_intervals(list(ranked.values()), decimals=DECIMALS) if ranked else ()))
    found = []
    for group in groups:
        own = known.get(id(group))
        if own is None:
            found.append(Standing(group, None))
            continue
        rivals = {name: rival(group, name, groups) for name in RIVALS}
        better = {
            name: improvement(own, known[id(other)])
            for name, other in rivals.items()
            if other is not None and other is not group and id(other) in known
        }
        interval = intervals.get(id(group)) if len(own) > 1 else None
        found.append(Standing(group, own, ranks.get(id(group)), interval, iqm_estimate(own), better))
    return sorted(found, key=lambda s: -np.inf if s.values is None else s.mean, reverse=True)


def final_values(
    groups: Iterable[Group], level: str, metric: str = "auroc"
) -> list[tuple[Group, np.ndarray | None]]:
    """The groups that have the metric, each with R[T-1, o] [seeds, objects] (None as in ``Standing``)."""
    having = [g for g in groups if any(metric in run.names(level) for run in g.runs)]
    return [(g, _values(g, having[0].runs[0].objects, level, metric)) for g in having]


def rival(group: Group, name: str, groups: Iterable[Group]) -> Group | None:
    """The group of a reference strategy among ``groups`` that is comparable with a group.

    The settings of an external run are unknown: it is compared if there is a single candidate.
    """
    if not group.record.external:
        found = group.references.get(name)
        return found if found is not None and any(found is g for g in groups) else None
    candidates = [g for g in groups if g.strategy == name]
    return candidates[0] if len(candidates) == 1 else None


def _values(group: Group, objects: Sequence[str], level: str, metric: str) -> np.ndarray | None:
    """R[T-1, o] [seeds, objects]; None if a run lacks the metric or a value, or has different objects."""
    rows = []
    for run in group.runs:
        if metric not in run.names(level) or set(run.objects) != set(objects):
            return None
        last = dict(zip(run.objects, run.matrix(level, metric).values[-1]))
        rows.append([last[name] for name in objects])
    values = np.array(rows)
    return None if np.isnan(values).any() else values
