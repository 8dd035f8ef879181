"""Time and memory against the number of images, of objects, the size of images, and over experiences.

Every point is a process of its own on random features with a small network, so that what grows is the
harness: resident features, batches, evaluation, metrics. Prints CPU seconds and peak memory beyond an empty
run, and how both grow from point to point: 1.00 is linear.

Usage: python tests/perf/scaling.py [images objects size experiences] [--images 250,1000,4000,10821]
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path

from workers import Worker

from iufbench.bench.learner import build_learner
from iufbench.support.allocator import keep_freed_memory

SMALL = ("network.hidden=16", "network.heads=2", "network.feedforward=16", "oasa.resolution=10")
ONE_EPOCH = ("base.epochs=1", "increment.epochs=1", "base.batch_size=24", "increment.batch_size=24")


def training(images: int) -> Callable[[], object]:
    keep_freed_memory()
    learner = build_learner("iuf", "quick", [[images]], settings=(*SMALL, *ONE_EPOCH))
    return lambda: learner.strategy.train(learner.streams.train[0], eval_streams=[])


def evaluation(objects: int) -> Callable[[], object]:
    """Forward passes and metrics of 20 test images of every object."""
    keep_freed_memory()
    learner = build_learner("iuf", "quick", [[2] * objects], test=20, settings=(*SMALL, *ONE_EPOCH))
    learner.strategy.train(learner.streams.train[0], eval_streams=[])
    return learner.evaluator()


def image_size(side: int) -> Callable[[], object]:
    """One epoch of 96 images: features and tokens grow with the image's area."""
    keep_freed_memory()
    settings = (*SMALL, *ONE_EPOCH, f"image_size={side}", "network.neighbour_mask=null")
    learner = build_learner("iuf", "quick", [[96]], settings=settings)
    return lambda: learner.strategy.train(learner.streams.train[0], eval_streams=[])


def experiences(count: int) -> Callable[[], object]:
    """Trains and evaluates one experience after another; resident MiB after each."""
    keep_freed_memory()
    learner = build_learner("iuf", "quick", [[48]] * count, test=20, settings=(*SMALL, *ONE_EPOCH))

    def call() -> list[float]:
        resident = []
        for number, experience in enumerate(learner.streams.train):
            learner.strategy.train(experience, eval_streams=[])
            learner.evaluation.start(number, number + 1)
            learner.strategy.eval([learner.streams.test[number]])
            resident.append(_resident_mib())
        return resident

    return call


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def grow(name: str, make: Callable[[int], Callable[[], object]], points: list[int], area: bool) -> None:
    """``area``: the work is expected to grow with the square of the point."""
    before: tuple[int, float] | None = None
    for point in points:
        worker = Worker(make, point)
        cpu, _, peak, _ = worker.turn()
        worker.close()
        text = f"{name} {point}: {cpu:.2f} s CPU, peak {peak:.0f} MiB"
        if before is not None:
            size = (point / before[0]) ** (2 if area else 1)
            text += f", growth {math.log(cpu / before[1]) / math.log(size):.2f}"
        print(text, flush=True)
        before = (point, cpu)


def flat(count: int) -> None:
    worker = Worker(experiences, count)
    resident = worker.turn()[3]
    worker.close()
    assert isinstance(resident, list)
    later = resident[2:]
    slope = statistics.linear_regression(range(len(later)), later).slope
    print(f"experiences: resident MiB after each {[round(r) for r in resident]}")
    print(f"experiences: slope from the third on {slope:+.2f} MiB each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=["images", "objects", "size", "experiences"])
    parser.add_argument("--images", default="250,1000,4000,10821")
    parser.add_argument("--objects", default="3,12,60")
    parser.add_argument("--sizes", default="96,160,224")
    parser.add_argument("--experiences", type=int, default=10)
    given = parser.parse_args()

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    if "images" in given.what:
        grow("images", training, numbers(given.images), area=False)
    if "objects" in given.what:
        grow("objects", evaluation, numbers(given.objects), area=False)
    if "size" in given.what:
        grow("image size", image_size, numbers(given.sizes), area=True)
    if "experiences" in given.what:
        flat(given.experiences)


if __name__ == "__main__":
    main()
