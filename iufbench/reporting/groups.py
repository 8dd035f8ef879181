"""Groups of runs that may be averaged: those that differ only in the seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from iufbench.cards.registry import card_paths
from iufbench.cards.strategies import FAMILIES, load_strategy
from iufbench.reporting.record import RunRecord, StrategyRecord
from iufbench.reporting.relative import relative
from iufbench.reporting.store import Run
from iufbench.reporting.worlds import World, worlds

FROZEN = "frozen"
REFERENCES = (FROZEN, "cumulative")
FINETUNE = "finetune"


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one recipe on the same data and protocol, one per seed, in the order of their seeds.

    ``world`` distinguishes groups that must not share a table. ``references`` are the groups of the
    strategies ``frozen``, ``cumulative`` and ``finetune`` under the same conditions, if they were run.
    """

    runs: tuple[Run, ...]
    world: World = ()
    references: dict[str, Group] = field(default_factory=dict, repr=False)
    _cache: dict[tuple[str, str], list[dict[str, float]]] = field(default_factory=dict, repr=False)

    @property
    def record(self) -> RunRecord:
        """What the runs share, as in the first run's ``run.json``."""
        return self.runs[0].record

    @property
    def dataset(self) -> str:
        """The key shared by groups that may share a table; part of file names."""
        parts = [label.removeprefix("data ").replace(" ", "") for label in self.world]
        return "_".join([self.record.dataset.name, *parts])

    @property
    def dataset_title(self) -> str:
        """The title of the data set, with the properties that distinguish these results from others on it."""
        label = self.record.dataset.label
        return f"{label} ({', '.join(self.world)})" if self.world else label

    @property
    def protocol(self) -> str:
        return self.record.protocol.id

    @property
    def strategy(self) -> str:
        return self.record.strategy.name

    @property
    def title(self) -> str:
        return self.record.label

    @property
    def family(self) -> str:
        """The kind of strategy, a key of ``FAMILIES``."""
        return family_of(self.record.strategy)

    @property
    def rank(self) -> tuple[int, str, str]:
        """The sort key of the strategy in tables and figures: family, then title."""
        return list(FAMILIES).index(self.family), self.title.lower(), self.strategy

    @property
    def preset(self) -> str:
        return self.record.preset or ""

    @property
    def recipe_hash(self) -> str:
        return self.record.recipe_hash

    @property
    def scoring(self) -> str:
        """How anomaly maps were smoothed and reduced to image scores: ``image score max, map sigma 4``."""
        if self.record.external:
            return "image scores as submitted"
        blocks = [b for b in self.record.recipe.values() if isinstance(b, dict) and "smoothing" in b]
        found = [block["smoothing"] for block in blocks if isinstance(block["smoothing"], (int, float))]
        sigma = [f"map sigma {value:g}" for value in found if value]
        size = self.record.image_size
        inputs = [] if size in (None, self.record.map_size) else [f"images of {size} px"]
        return ", ".join(
            [f"image score {self.runs[0].score_rule}", *(sigma or ["map not smoothed"]), *inputs]
        )

    @property
    def joint(self) -> bool:
        """All objects were trained at once: there is a single evaluation and nothing to forget."""
        return len(self.runs[0].experiences) == 1

    @property
    def ids(self) -> str:
        """The ids of the runs, short: ``visa/visa_8_1x4/iuf/0a1b2c3d/seed{0,1,2}``."""
        place = self.runs[0].id.rpartition("/seed")[0]
        seeds = [str(run.seed) for run in self.runs]
        return f"{place}/seed{seeds[0]}" if len(seeds) == 1 else f"{place}/seed{{{','.join(seeds)}}}"

    def values(self, level: str, metric: str, summary: str) -> np.ndarray:
        """One continual summary per seed, float64 [n] in the metric's own unit.

        NaN if a required value is missing: a mean over the others would be a different quantity.
        Empty if the runs lack the metric.
        """
        if metric not in self.runs[0].names(level):
            return np.array([])
        if (level, metric) not in self._cache:
            self._cache[level, metric] = [
                run.summary(level, metric)
                | relative(run, level, metric, *(self.reference(name, run.seed) for name in REFERENCES))
                for run in self.runs
            ]
        return np.array([s.get(summary, np.nan) for s in self._cache[level, metric]])

    def reference(self, strategy: str, seed: int) -> Run | None:
        """The run of a reference strategy with the same seed."""
        group = self.references.get(strategy)
        return next((run for run in group.runs if run.seed == seed), None) if group else None


def setting(run: Run) -> tuple[Any, ...]:
    """The settings that must agree for results in one row: strategy, preset, sizes, backbone."""
    record, backbone = run.record, run.record.backbone
    return (
        record.strategy.name,
        record.strategy.version,
        record.preset,
        record.image_size,
        record.map_size,
        backbone.name,
        backbone.weights_sha256,
        backbone.random,
    )


def family_of(strategy: StrategyRecord) -> str:
    """The family in ``run.json``, else that of the installed card of that name, else ``other``."""
    told = strategy.family or _family_of_card(strategy.name)
    return told if told in FAMILIES else "other"


@lru_cache(maxsize=512)
def _family_of_card(name: str) -> str:
    told = str(load_strategy(name).content.get("family")) if name in card_paths("strategy") else ""
    return told if told in FAMILIES else "other"


def installed_families() -> dict[str, str]:
    """Name -> family of every installed strategy, by name."""
    return {name: _family_of_card(name) for name in sorted(card_paths("strategy"))}


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Groups by data set, protocol, family, strategy and recipe; the runs of one differ in the seed only."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.id.rpartition("/seed")[0], run.seed)):
        experiences = tuple(map(tuple, run.experiences))
        place = run.id.rpartition("/seed")[0]
        record = run.record
        data = record.dataset
        key = (place, data.fingerprint, data.orientation, record.scores_version, experiences, *setting(run))
        found.setdefault(key, []).append(run)
    apart = worlds([run for members in found.values() for run in members])
    groups = [Group(tuple(members), apart[members[0].id]) for members in found.values()]
    _attach_references(groups)
    return sorted(groups, key=lambda g: (g.dataset, g.protocol, g.rank))  # stable: by recipe


def conditions(run: Run) -> tuple[Any, ...]:
    """The conditions under which two strategies are comparable: data, protocol, preset, sizes, backbone."""
    record, backbone = run.record, run.record.backbone
    return (
        record.dataset.name,
        record.dataset.fingerprint,
        record.dataset.orientation,
        record.protocol.id,
        frozenset(run.objects),
        record.preset,
        record.image_size,
        record.map_size,
        record.scores_version,
        backbone.name,
        backbone.weights_sha256,
        backbone.random,
    )


def _attach_references(groups: Sequence[Group]) -> None:
    """Attach to every group the reference groups under its conditions, if they are unique.

    Of several recipes of a reference, only one with the group's own base schedule is used.
    """
    for name in (*REFERENCES, FINETUNE):
        found: dict[tuple[Any, ...], list[Group]] = {}
        for group in groups:
            if group.strategy == name:
                found.setdefault(conditions(group.runs[0]), []).append(group)
        for group in groups:
            candidates = [group] if group.strategy == name else found.get(conditions(group.runs[0]), [])
            if len(candidates) > 1:
                base = group.record.recipe.get("base")
                candidates = [c for c in candidates if c.record.recipe.get("base") == base]
            if len(candidates) == 1:
                group.references[name] = candidates[0]
