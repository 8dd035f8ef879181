"""The search of every free strength, by one protocol (docs/tuning/README.md), on synthetic data.

Runs go to a results folder and are reused, so the command can be interrupted and repeated; the base
experience of a strategy and seed is trained once and shared by all values of options that act in increments
only. Writes docs/tuning/<strategy>.csv, a row a point of the search.

Usage: python tests/perf/tune.py [STRATEGY ...] [--results DIR] [--tables docs/tuning] [--screen-only]
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iufbench.cards.request import Request
from iufbench.engine.plan import prepare
from iufbench.engine.runner import execute, is_complete
from iufbench.reporting.store import load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import write_csv
from iufbench.support.folders import cache_folder
from iufbench.support.progress import Progress
from iufbench.sweeps.base import adopt_base, has_base

DATA_SEED = 1  # results are reported on data seed 0
PROTOCOL = "visa_3_1x3"
SEEDS = (0, 1, 2)
FINALISTS = 3  # points that are run with every seed; the others with the first only
CLOSE = 0.02  # what counts as the best ACC-final when no point is plastic enough
EXTENSIONS = 2  # how often a grid grows when the best value lies at its end
NAMES = ("acc_final", "fm_final", "plasticity", "retention", "new_object")
MEASURED = tuple(f"{level}_{name}" for level in ("image", "pixel") for name in NAMES)
COLUMNS = ("strategy", "stage", "settings", "seeds", *MEASURED, "feasible", "chosen")

Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Coordinate:
    """Values of one option, in order.

    ``factor``: a logarithmic grid, which grows at its ends by this factor while the best value lies there,
    and then gets the geometric means of the best value and its neighbours.
    """

    option: str
    values: tuple[str, ...]
    factor: float | None = None


@dataclass(frozen=True)
class Search:
    """Coordinates that are searched one after another from ``start``; each keeps the best value so far.

    ``reference``: the strategy that is this one without its protection. ``restarts``: settings from which the
    ``inner`` coordinates are searched once more, for options that only make sense together.
    """

    reference: str
    start: Settings
    coordinates: tuple[Coordinate, ...]
    restarts: tuple[Settings, ...] = ()
    inner: tuple[Coordinate, ...] = ()


def strength(option: str, *values: float, factor: float | None = 10.0) -> Coordinate:
    return Coordinate(option, tuple(f"{value:g}" for value in values), factor)


PULL = strength("update.pull", 0, 1e-4, 1e-3, 1e-2, 0.1)
RATE = strength("increment.lr", 1e-4, 1e-3, 1e-2)
ADAMW: Settings = (
    ("increment.optimizer", "adamw"), ("increment.weight_decay", "1e-4"), ("increment.lr", "1e-3"),
    ("increment.schedule", "cosine"), ("increment.warmup_iterations", "10"), ("increment.clip_norm", "1"),
    ("update.pull", "0.005"),
)  # fmt: skip
SGD: Settings = (
    ("increment.optimizer", "sgd"), ("increment.weight_decay", "0"), ("increment.lr", "1"),
    ("increment.schedule", "constant"), ("increment.warmup_iterations", "0"), ("increment.clip_norm", "0.1"),
    ("update.pull", "0.05"),
)  # fmt: skip


def single(option: str, *values: float, factor: float | None = 10.0) -> Search:
    return Search("uniad", (), (strength(option, *values, factor=factor),))


SEARCHES: dict[str, Search] = {
    "iuf": Search(
        "finetune",
        ADAMW,
        (
            PULL,
            RATE,
            Coordinate("increment.clip_norm", ("0.1", "1", "10")),
            Coordinate("update.projection_power", ("0", "1", "4")),
            Coordinate("update.pull_classifier", ("true", "false")),
            Coordinate("update.clip_classifier", ("true", "false")),
        ),
        restarts=(SGD,),
        inner=(
            Coordinate("update.pull", ("0.001", "0.01", "0.05")),
            Coordinate("increment.lr", ("0.1", "1", "10")),
        ),
    ),
    "ewc": single("ewc.strength", 1e-3, 1e-2, 0.1, 1, 10),
    "ewc_online": single("ewc.strength", 1e-3, 1e-2, 0.1, 1, 10),
    "si": single("si.strength", 1e-3, 1e-2, 0.1, 1, 10),
    "mas": single("mas.strength", 1e-3, 1e-2, 0.1, 1, 10),
    "lwf": single("lwf.strength", 1e-2, 0.1, 1, 10, 100),
    "lvt": single("attention.strength", 1e-2, 0.1, 1, 10, 100),
    "der": single("der.alpha", 1e-2, 0.1, 1, 10, 100),
    "gpm": single("gpm.energy", 0.5, 0.8, 0.9, 0.95, 0.97, 0.99, factor=None),
}


@dataclass
class Point:
    """Settings and what runs with them gave, by seed."""

    settings: Settings
    found: dict[int, dict[str, float]]

    def mean(self, name: str, seeds: Sequence[int] | None = None) -> float:
        return statistics.fmean(self.found[seed][name] for seed in seeds or self.found)


class Bench:
    """Runs points, sharing base experiences, and remembers them."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.donors: dict[tuple[str, int], list[Path]] = {}
        self.points: dict[tuple[str, Settings], Point] = {}

    def point(self, strategy: str, settings: Settings, seeds: Sequence[int]) -> Point:
        point = self.points.setdefault((strategy, settings), Point(settings, {}))
        for seed in seeds:
            if seed not in point.found:
                point.found[seed] = self.measured(strategy, settings, seed)
                text = " ".join(f"{key}={value}" for key, value in settings)
                values = " ".join(f"{name} {point.found[seed][name]:.3f}" for name in MEASURED[:4])
                print(f"{strategy} seed {seed}: {text or 'as it is'}: {values}", flush=True)
        return point

    def measured(self, strategy: str, settings: Settings, seed: int) -> dict[str, float]:
        """The summaries of one run, which is executed unless it is there."""
        plan = prepare(
            Request(
                protocol=PROTOCOL,
                strategy=strategy,
                seed=seed,
                synthetic=True,
                data_seed=DATA_SEED,
                preset="quick",
                device="cpu",
                threads=1,
                eval_unseen=True,  # zero-shot values, for plasticity
                settings=tuple(f"{key}={value}" for key, value in settings),
                results=self.results,
            )
        )
        donors = self.donors.setdefault((strategy, seed), [])
        if not is_complete(plan):
            adopt_base(plan, donors, Progress(-1))
            execute(plan, Progress(-1))
        if has_base(plan.path):
            donors.append(plan.path)
        found = load_run(plan.path).summaries()
        return {f"{level}_{name}": found[level][name] for level in ("image", "pixel") for name in NAMES}


def choose(points: Sequence[Point], needed: float, seeds: Sequence[int]) -> Point:
    """The criterion: highest image ACC-final among points with at least the plasticity ``needed``; when there
    is none, the most plastic one within ``CLOSE`` of the best ACC-final."""
    plastic = [p for p in points if p.mean("image_plasticity", seeds) >= needed]
    if plastic:
        return max(plastic, key=lambda p: p.mean("image_acc_final", seeds))
    best = max(p.mean("image_acc_final", seeds) for p in points)
    close = [p for p in points if p.mean("image_acc_final", seeds) >= best - CLOSE]
    return max(close, key=lambda p: p.mean("image_plasticity", seeds))


def changed(settings: Settings, option: str, value: str) -> Settings:
    return tuple(sorted({**dict(settings), option: value}.items()))


def descend(
    bench: Bench, strategy: str, start: Settings, coordinates: Sequence[Coordinate], needed: float
) -> list[Point]:
    """Every point of the search on the first seed, coordinate by coordinate."""
    seed, now, seen = SEEDS[:1], tuple(sorted(start)), []
    for coordinate in coordinates:
        values, extensions, refined = list(coordinate.values), 0, coordinate.factor is None
        while True:
            points = [bench.point(strategy, changed(now, coordinate.option, v), seed) for v in values]
            best = choose(points, needed, seed)
            if refined:
                break
            at, factor = points.index(best), coordinate.factor
            if extensions < EXTENSIONS and at == len(values) - 1:
                values.append(f"{float(values[-1]) * factor:.3g}")
            elif extensions < EXTENSIONS and at == 0 and float(values[0]) > 0:
                values.insert(0, f"{float(values[0]) / factor:.3g}")
            else:
                middles = {between(*pair) for pair in itertools.pairwise(values[max(at - 1, 0) : at + 2])}
                values, refined = sorted({*values, *middles} - {""}, key=float), True
            extensions += 1
        seen += points
        now = best.settings
    return seen


def between(low: str, high: str) -> str:
    """The geometric mean of two values, to one digit; "" next to 0."""
    return f"{math.sqrt(float(low) * float(high)):.1g}" if float(low) > 0 else ""


def search(bench: Bench, strategy: str, screen_only: bool) -> list[dict[str, object]]:
    """Rows of the table of one strategy: screened on the first seed, finalists on all of them."""
    plan = SEARCHES[strategy]
    references = SEEDS[:1] if screen_only else SEEDS
    reference = bench.point(plan.reference, (), references)

    def needed(seeds: Sequence[int]) -> float:
        return reference.mean("image_plasticity", seeds) / 2

    points = descend(bench, strategy, plan.start, plan.coordinates, needed(SEEDS[:1]))
    for settings in plan.restarts:
        points += descend(bench, strategy, settings, plan.inner, needed(SEEDS[:1]))
    # Settings that differ from one another by a default only give the same numbers, and count once.
    points = list({tuple(p.found[SEEDS[0]].values()): p for p in reversed(points)}.values())[::-1]
    left, finalists = list(points), []
    while left and len(finalists) < FINALISTS and not screen_only:
        finalists.append(choose(left, needed(SEEDS[:1]), SEEDS[:1]))
        left.remove(finalists[-1])
    for point in finalists:
        bench.point(strategy, point.settings, SEEDS)
    seeds = SEEDS[:1] if screen_only else SEEDS
    chosen = choose(finalists or points, needed(seeds), seeds)
    rows = [row(plan.reference, "reference", reference, needed(list(reference.found)), None)]
    return rows + [
        row(strategy, "final" if p in finalists else "screen", p, needed(list(p.found)), chosen)
        for p in points
    ]


def row(strategy: str, stage: str, point: Point, needed: float, chosen: Point | None) -> dict[str, object]:
    text = " ".join(f"{key}={value}" for key, value in point.settings)
    values = {name: round(point.mean(name), 4) for name in MEASURED}
    feasible = "yes" if values["image_plasticity"] >= needed else ""
    seeds = " ".join(map(str, sorted(point.found)))
    mark = "yes" if point is chosen else ""
    return {"strategy": strategy, "stage": stage, "settings": text, "seeds": seeds, **values,
            "feasible": feasible, "chosen": mark}  # fmt: skip


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    write_csv(path, COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    print(f"written: {path}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("strategies", nargs="*", help=f"default: {' '.join(SEARCHES)}")
    parser.add_argument("--results", type=Path, default=cache_folder() / "tuning")
    parser.add_argument("--tables", type=Path, default=Path("docs/tuning"))
    parser.add_argument("--screen-only", action="store_true", help="the first seed only")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    bench = Bench(arguments.results)
    try:
        for strategy in arguments.strategies or SEARCHES:
            write(arguments.tables / f"{strategy}.csv", search(bench, strategy, arguments.screen_only))
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
