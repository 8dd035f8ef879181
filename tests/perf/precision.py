"""Image and pixel AUROC of fp32, tf32 and bf16 over seeds, on synthetic data and on a folder of real objects.

The default precision on a GPU may cost no more than seeds differ among themselves. tf32 needs a CUDA device;
on the CPU, fp32 and bf16 are compared. Runs are kept and reused, so that the command can be repeated.

Usage: python tests/perf/precision.py [--strategy uniad ...] [--data-root FOLDER --protocol mvtec_...]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from iufbench.engine import api
from iufbench.reporting.store import Run
from iufbench.support.errors import InputError

SEEDS = (0, 1, 2)


def reached(run: Run) -> dict[str, float]:
    """ACC-final of image and pixel AUROC, in percent."""
    return {level: 100 * run.summary(level, "auroc")["acc_final"] for level in ("image", "pixel")}


def rows(given: argparse.Namespace, protocol: str, data_root: Path | None) -> list[str]:
    precisions = ("fp32", "tf32", "bf16") if torch.cuda.is_available() else ("fp32", "bf16")
    lines = []
    for strategy in given.strategy or ["uniad", "iuf"]:
        for precision in precisions:
            found: dict[str, list[float]] = {}
            for seed in given.seeds:
                run = api.run(
                    protocol, strategy, seed=seed, data_root=data_root, synthetic=data_root is None,
                    preset=given.preset, precision=precision, device=given.device, settings=given.set,
                    results=given.results, quiet=True,
                )  # fmt: skip
                for level, value in reached(run).items():
                    found.setdefault(level, []).append(value)
            cells = [
                f"{statistics.mean(v):.2f} ± {statistics.stdev(v) if len(v) > 1 else float('nan'):.2f}"
                for v in found.values()
            ]
            data = "synthetic" if data_root is None else data_root.name
            lines.append(f"| {data} | `{strategy}` | {precision} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--strategy", action="append", help="repeatable [default: uniad, iuf]")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--synthetic-protocol", default="visa_8_1x4")
    parser.add_argument("--data-root", type=Path, help="real objects, beside the synthetic ones")
    parser.add_argument("--protocol", help="protocol of --data-root")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=Path("precision-results"))
    given = parser.parse_args(arguments)
    try:
        lines = rows(given, given.synthetic_protocol, None) if given.synthetic_protocol != "none" else []
        if given.data_root is not None:
            lines += rows(given, given.protocol or "", given.data_root)
    except InputError as error:
        print(error)
        return 2
    header = ["| data | strategy | precision | image AUROC | pixel AUROC |", "|---|---|---|---:|---:|"]
    print("\n".join(["", *header, *lines]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
