"""Search one option of a strategy on synthetic data with a data seed that no reported number uses.

Prints a table, a row a value, and writes it to docs/tuning/<strategy>.csv, where rows of other options stay.
Finished runs are reused. The value with the highest mean image ACC-final is marked as best: forgetting alone
would choose the most rigid one.

Usage: python tests/perf/tune.py ewc ewc.strength 0.01,0.1,1 [--seeds 0,1] [--set base.epochs=10] ...
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from pathlib import Path

from iufbench.cards.request import Request
from iufbench.engine.plan import prepare
from iufbench.engine.runner import execute, is_complete
from iufbench.reporting.store import load_run
from iufbench.reporting.summary import summaries
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import write_csv
from iufbench.support.folders import cache_folder
from iufbench.support.progress import Progress

DATA_SEED = 1  # results are reported on data seed 0
LEVELS, SUMMARIES = ("image", "pixel"), ("acc_final", "fm_final", "new_object")
MEASURED = tuple(f"{level}_{name}" for level in LEVELS for name in SUMMARIES)
COLUMNS = ("option", "value", "protocol", "data_seed", "seeds", "settings", *MEASURED, "best")


def measure(request: Request) -> dict[str, float]:
    """The continual summaries of one run, which is made unless it is there."""
    plan = prepare(request)
    if not is_complete(plan):
        execute(plan, Progress(-1))
    found = summaries(load_run(plan.path))
    return {f"{level}_{name}": found[level][name] for level in LEVELS for name in SUMMARIES}


def search(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row per value of the option: means over the run seeds."""
    rows: list[dict[str, object]] = []
    for value in arguments.values.split(","):
        runs = [
            measure(
                Request(
                    protocol=arguments.protocol,
                    strategy=arguments.strategy,
                    seed=int(seed),
                    synthetic=True,
                    data_seed=DATA_SEED,
                    preset="quick",
                    device=arguments.device,
                    threads=arguments.threads,
                    settings=(*arguments.set, f"{arguments.option}={value}"),
                    results=arguments.results,
                )
            )
            for seed in arguments.seeds.split(",")
        ]
        means = {name: round(statistics.fmean(run[name] for run in runs), 4) for name in MEASURED}
        row = {"option": arguments.option, "value": value, "protocol": arguments.protocol}
        row |= {"data_seed": DATA_SEED, "seeds": arguments.seeds.replace(",", " ")}
        rows.append({**row, "settings": " ".join(arguments.set), **means, "best": ""})
        print("  ".join(f"{name} {rows[-1][name]}" for name in ("option", "value", *MEASURED)), flush=True)
    max(rows, key=lambda row: row["image_acc_final"])["best"] = "yes"
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("strategy")
    parser.add_argument("option", help="card key, for example ewc.strength")
    parser.add_argument("values", help="comma-separated")
    parser.add_argument("--protocol", default="visa_8_1x4")
    parser.add_argument("--seeds", default="0", help="run seeds, comma-separated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=cache_folder() / "tuning")
    parser.add_argument("--tables", type=Path, default=Path("docs/tuning"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        rows = search(arguments)
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    path = arguments.tables / f"{arguments.strategy}.csv"
    kept: list[dict[str, object]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as stream:
            kept = [dict(row) for row in csv.DictReader(stream) if row["option"] != arguments.option]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, COLUMNS, [[row[column] for column in COLUMNS] for row in [*kept, *rows]])
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
