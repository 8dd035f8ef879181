"""What the quick preset reaches on synthetic VisA and on ELPV, seeds 0-2, against the stated goals.

Prints one line per goal with what was measured, and exits 1 when one is missed. Finished runs are
reused, so a second call only prints. Usage: python tests/perf/demo_check.py [results folder]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from iufbench.cards.request import Request
from iufbench.engine.plan import prepare
from iufbench.engine.runner import is_complete
from iufbench.reporting.store import load_run

SEEDS = (0, 1, 2)


def summary(results: Path, protocol: str, strategy: str, synthetic: bool, level: str, name: str) -> float:
    """Mean over seeds of one continual summary; missing runs are made first."""
    values = []
    for seed in SEEDS:
        request = Request(
            protocol, strategy, seed=seed, synthetic=synthetic, results=results, eval_unseen=synthetic
        )
        plan = prepare(request, progress=False)
        if not is_complete(plan):
            command = ["run", "--protocol", protocol, "--strategy", strategy, "--seed", str(seed)]
            command += ["--results", str(results)] + (["--synthetic", "--eval-unseen"] if synthetic else [])
            program = str(Path(sys.executable).with_name("iufbench"))
            subprocess.run([program, *command], check=True, stdout=subprocess.DEVNULL)
        run = load_run(plan.path)
        values.append(run.summaries()[level][name])
    return statistics.mean(values)


def main() -> int:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")

    def visa(strategy: str, level: str, name: str) -> float:
        return summary(results, "visa_8_1x4", strategy, True, level, name)

    def elpv(protocol: str, strategy: str) -> float:
        return summary(results, protocol, strategy, False, "image", "fm_final")

    forgets, protected = visa("finetune", "image", "fm_final"), visa("iuf", "image", "fm_final")
    goals = [
        ("joint: image AUROC", visa("joint", "image", "acc_final"), ">=", 0.90),
        ("joint: pixel AUROC", visa("joint", "pixel", "acc_final"), ">=", 0.95),
        ("finetune: FM-final (image)", forgets, ">=", 0.15),
        ("iuf: FM-final (image), at most half of finetune's", protected, "<=", forgets / 2),
    ]
    learnt = visa("finetune", "image", "plasticity")
    goals += [
        (
            "iuf: plasticity (image), at least half of finetune's",
            visa("iuf", "image", "plasticity"),
            ">=",
            learnt / 2,
        ),
        (
            "iuf: ACC-final (image), above frozen's",
            visa("iuf", "image", "acc_final"),
            ">=",
            visa("frozen", "image", "acc_final"),
        ),
    ]
    for protocol in ("elpv_1_1", "elpv_1_1_reversed"):
        forgets = elpv(protocol, "finetune")
        goals.append((f"{protocol} finetune: FM-final (image)", forgets, ">=", 0.15))
        goals.append((f"{protocol} iuf: at most half of that", elpv(protocol, "iuf"), "<=", forgets / 2))

    missed = 0
    print(f"quick preset, means over seeds {SEEDS}; visa_8_1x4 is SYNTHETIC data, elpv is real")
    for text, value, sign, goal in goals:
        reached = value >= goal if sign == ">=" else value <= goal
        missed += not reached
        print(f"{'reached' if reached else 'MISSED '}  {text}: {value:.3f} (goal {sign} {goal:.3f})")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
