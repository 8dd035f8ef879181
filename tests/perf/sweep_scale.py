"""Ten thousand runs that train nothing: what the engines, the driver's memory and the summary cost a run.

    python tests/perf/sweep_scale.py [--engine local|ray] [--sizes 100 1000 10000] [--jobs 2]

Prints, for each size, seconds and driver memory a run, and ratios to the smallest size: growth is linear
where the ratios stay near 1. Ray starts a cluster of one node on this machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent), str(HERE.parent / "sweep")]


def nothing(request, progress, bases=()):
    """The run function: no training, no files."""


def one_size(engine_name, count, jobs):
    """Execute so many runs in this process; prints one line of numbers."""
    from stubs import planned

    from iufbench.sweeps.drive import Sweep, carry_out
    from iufbench.sweeps.screen import Screen

    os.environ["PYTHONPATH"] = str(HERE)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        runs = [planned(results, number) for number in range(count)]
        before = resource.getrusage(resource.RUSAGE_SELF)
        sweep = Sweep("scale", {}, runs, results)
        if engine_name == "local":
            from iufbench.sweeps.local import LocalEngine

            made, cluster = LocalEngine(jobs, 1, function="sweep_scale:nothing"), None
        else:
            from cluster import Cluster

            from iufbench.sweeps.ray_engine import RayEngine

            cluster = Cluster(cpus=jobs, PYTHONPATH=f"{HERE}:{HERE.parent / 'sweep'}")
            made = RayEngine(cluster.address, shared=True, function="sweep_scale:nothing")
            made.check = lambda runs: None
        clock = time.perf_counter()
        failures = carry_out(sweep, made, engine_name, Screen(-1), share_base=False)
        seconds = time.perf_counter() - clock
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert failures == {}, failures
        if cluster is not None:
            made._ray.shutdown()
            cluster.close()
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        grown = (after.ru_maxrss - before.ru_maxrss) / 2**10
    print(f"{count} {seconds:.3f} {own:.3f} {grown:.2f} {after.ru_maxrss / 2**10:.0f}")


def summary_seconds(sizes):
    """Seconds of the final table over so many generated run directories."""
    from fake_runs import make_run

    from iufbench.sweeps.summary import summary_table

    print("\nfinal table (made-up numbers, 5 seeds a recipe)\n  runs    CPU s  ms/run  ratio")
    first = None
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            paths = [
                make_run(Path(folder), "visa_11_1", f"s{number // 5}", seed=number % 5)
                for number in range(count)
            ]
            clock = time.process_time()
            summary_table([Path(path) for path in paths])
            seconds = time.process_time() - clock
        first = first or seconds / count
        print(f"{count:6d} {seconds:8.2f} {1000 * seconds / count:7.2f} {seconds / count / first:6.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--no-summary", action="store_true")
    given = parser.parse_args()
    if given.one:
        one_size(given.engine, given.one, given.jobs)
        return
    print(f"engine {given.engine}, {given.jobs} at once; driver's own CPU seconds tell more than the clock")
    print("  runs  seconds  driver CPU s  CPU ms/run  ratio  memory grown MiB  peak MiB")
    first = None
    for count in given.sizes:
        words = [
            sys.executable,
            __file__,
            "--engine",
            given.engine,
            "--jobs",
            str(given.jobs),
            "--one",
            str(count),
        ]
        line = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-5:]
        seconds, own, grown, peak = map(float, line[1:])
        first = first or own / count
        print(
            f"{count:6d} {seconds:8.1f} {own:13.2f} {1000 * own / count:11.2f} {own / count / first:6.2f} "
            f"{grown:17.1f} {peak:9.0f}",
            flush=True,
        )
    if not given.no_summary:
        summary_seconds(given.sizes)


if __name__ == "__main__":
    main()
