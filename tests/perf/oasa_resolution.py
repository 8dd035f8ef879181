"""Which image resolution IUF's object classifier needs: accuracy, AUROC and cost against 224.

Trains ``iuf`` on synthetic data (data seed 1, which no reported number uses) with the classifier at each
resolution and everything else alike, and prints, per resolution: how many test images the classifier names
rightly after the base, image and pixel AUROC (final mean), CPU seconds; then the spread of the largest over
seeds, and the lowest resolution that differs from it by no more than that, in all three.

Usage: python tests/perf/oasa_resolution.py [--resolutions 14,56,224] [--seeds 0,1] [--set base.epochs=10]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from iufbench.cards.request import Request
from iufbench.data.resident import Batches
from iufbench.engine.assembly import assemble
from iufbench.engine.plan import prepare
from iufbench.engine.runner import evaluate_objects
from iufbench.support.device import choose_device
from iufbench.support.folders import cache_folder
from iufbench.support.progress import Progress
from iufbench.support.seeding import derive, seed_everything

NAMES = ("accuracy", "image AUROC", "pixel AUROC")


def measure(resolution: int, seed: int, given: argparse.Namespace) -> tuple[list[float], float]:
    """Accuracy and the two AUROCs of one run, and its CPU seconds of training."""
    request = Request(
        protocol=given.protocol,
        strategy="iuf",
        seed=seed,
        synthetic=True,
        data_seed=1,
        preset="quick",
        device=given.device,
        threads=given.threads,
        settings=("image_size=224", *given.set, f"oasa.resolution={resolution}"),
        results=given.results,
    )
    plan = prepare(request)
    parts = assemble(plan, choose_device(given.device), Progress(-1))
    seconds, accuracy = 0.0, 0.0
    for number, experience in enumerate(parts.streams.train):
        seed_everything(derive(seed, number))
        start = time.process_time()
        parts.strategy.train(experience, eval_streams=[])
        seconds += time.process_time() - start
        if number == 0:
            accuracy = classified(parts, len(plan.experiences[0]), given.limit)
    count = len(plan.protocol.objects)
    rows = evaluate_objects(parts, len(plan.experiences) - 1, count, range(count), Progress(-1), "")
    aurocs = [
        statistics.fmean(r.value for r in rows.metrics if r.level == level and r.metric == "auroc")
        for level in ("image", "pixel")
    ]
    return [accuracy, *aurocs], seconds


@torch.no_grad()
def classified(parts, objects: int, limit: int) -> float:
    """Share of the test images of the base objects whose object the classifier names."""
    strategy, right, total = parts.strategy, 0, 0
    batches = Batches
    strategy.model.eval()
    for number in range(objects):
        for batch in batches(parts.streams.test[number].resident, 16):
            logits = strategy._reconstruct(batch.to(strategy.device)).class_logits
            right += int((logits.argmax(1) == number).sum())
            total += len(logits)
            if total >= (number + 1) * limit:
                break
    strategy.model.train()
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--resolutions", default="14,28,56,112,224")
    parser.add_argument("--protocol", default="visa_3_1")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--limit", type=int, default=1000, help="test images an object for the accuracy")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=cache_folder() / "tuning")
    given = parser.parse_args()
    seeds = [int(s) for s in given.seeds.split(",")]
    found: dict[int, list[list[float]]] = {}
    for resolution in map(int, given.resolutions.split(",")):
        runs = [measure(resolution, seed, given) for seed in seeds]
        found[resolution] = [values for values, _ in runs]
        seconds = statistics.fmean(s for _, s in runs)
        means = [statistics.fmean(column) for column in zip(*found[resolution])]
        text = ", ".join(f"{name} {value:.3f}" for name, value in zip(NAMES, means))
        print(f"{resolution}: {text}, {seconds:.1f} s CPU of training", flush=True)
    reference = found[max(found)]
    noise = [max(column) - min(column) for column in zip(*reference)]
    print(f"spread of {max(found)} over seeds {given.seeds}: {[round(n, 3) for n in noise]}")
    for resolution, values in sorted(found.items()):
        distance = [
            abs(statistics.fmean(a) - statistics.fmean(b)) for a, b in zip(zip(*values), zip(*reference))
        ]
        if all(d <= max(n, 0.01) for d, n in zip(distance, noise)):
            print(f"lowest resolution within it (or 0.01): {resolution}")
            break


if __name__ == "__main__":
    main()
