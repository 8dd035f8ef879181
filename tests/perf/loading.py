"""CPU seconds of reading results: ``list runs`` of 2,000 run directories, and ``tables`` of 500.

    python tests/perf/loading.py [--runs 2000] [--tables 500]

The runs are generated (``tests/fake_runs.py``): MVTec AD, 10-1 with 5 steps, with scores of every test image.
Each command is a separate process, including imports. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake_runs import make_run

GOALS = {"list": 5.0, "tables": 10.0}  # CPU seconds
STRATEGIES = ("iuf", "uniad", "finetune", "ewc", "lwf")


def make(results: Path, runs: int) -> None:
    """``runs`` directories: five strategies, and as many seeds as that takes."""
    for number in range(runs):
        seed, which = divmod(number, len(STRATEGIES))
        make_run(results, "mvtec_10_1x5", STRATEGIES[which], seed, scores=True)


def measured(*arguments: object) -> tuple[float, float]:
    """CPU seconds and seconds of one command."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "iufbench", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--tables", type=int, default=500)
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        listed, tabled = Path(folder) / "listed", Path(folder) / "tabled"
        make(listed, options.runs)
        for path in sorted(listed.glob("runs/*/*/*/*/seed*"), key=lambda p: int(p.name[4:]))[
            : options.tables
        ]:
            shutil.copytree(path, tabled / path.relative_to(listed))
        for name, runs, arguments in (
            ("list", options.runs, ("list", "runs", "--results", listed)),
            ("tables", options.tables, ("tables", "--results", tabled)),
        ):
            cpu, wall = measured(*arguments)
            late = cpu > GOALS[name]
            missed += late
            print(
                f"{' '.join(map(str, arguments[:-2]))} of {runs} runs: {cpu:.1f} s of CPU, {wall:.1f} s "
                f"(goal {GOALS[name]:.0f} s of CPU{', missed' if late else ''})",
                flush=True,
            )
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
