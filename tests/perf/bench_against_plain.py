"""iufbench against plain_released.py on the same work: ratios of CPU and wall seconds, side by side.

Each side has a process of its own and they take turns. Training steps go from image files (plain) or from the
features that are already there (iufbench: that is the point) to updated weights. Images and weights are
made up; speed does not depend on them.

Usage: python tests/perf/bench_against_plain.py [step ...] [--batch 2] [--repeats 3] [--out FILE.json]
with any of: uniad iuf (with iuf_release) evaluate metrics allocator loop
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain_released as plain
import torch
from bare_loop import bare_training, harness_training
from workers import Worker, compare

from iufbench.bench.learner import Learner, build_learner
from iufbench.bench.stages import METRIC_IMAGES, photographs, smooth_maps
from iufbench.bench.timing import Spread, ratio
from iufbench.metrics.image import image_metrics, image_score
from iufbench.metrics.pixel import pixel_metrics
from iufbench.support.allocator import keep_freed_memory
from iufbench.support.files import write_json

GOALS = {"uniad": 2.0, "iuf_release": 2.5, "iuf": 15.0, "evaluate": 5.0, "metrics": 10.0, "allocator": 1.0}


def learner_of(
    name: str, batch: int, preset: str, objects: int = 1, increments: int = 1, test: int = 2
) -> Learner:
    settings = [
        f"{part}.{key}" for part in ("base", "increment") for key in (f"batch_size={batch}", "epochs=1")
    ]
    if preset == "quick":  # the plain network has neither, and a small one shows whether the sides agree
        settings.append("network.standardise=false")
    train = [[batch] * objects, *([batch] for _ in range(increments))]
    return build_learner(name, preset, train, test=test, settings=settings)


def our_step(name: str, batch: int, increment: bool, preset: str, keep: bool = True) -> Callable[[], object]:
    if keep:
        keep_freed_memory()
    return learner_of(name, batch, preset).stepper(int(increment))


def plain_step(name: str, batch: int, increment: bool, preset: str) -> Callable[[], object]:
    """``iuf`` is compared with the released code too: its classifier looks at 224x224 pixels."""
    learner = learner_of(name, batch, preset)
    network = plain.network_for(learner).train()
    training = plain.PlainTraining(network, plain.Backbone(), name != "uniad", increment)
    folder = tempfile.mkdtemp()
    paths = photographs(Path(folder), batch)
    labels = torch.zeros(batch, dtype=torch.int64)
    return lambda: training.step(paths, None, labels)


def our_evaluation(name: str, images: int, preset: str) -> Callable[[], object]:
    """One call evaluates ``images`` of four objects and returns how many it has seen."""
    keep_freed_memory()
    learner = learner_of(name, 1, preset, objects=4, increments=0, test=images // 4)
    learner.strategy.train(learner.streams.train[0], eval_streams=[])
    evaluate = learner.evaluator()
    return lambda: len(evaluate().scores)


def plain_evaluation(name: str, images: int, preset: str) -> Callable[[], object]:
    learner = learner_of(name, 1, preset, objects=4, increments=0, test=images // 4)
    network = plain.network_for(learner)
    sets: list[Any] = []
    for experience, test in zip(learner.streams.test, learner.evaluation.tests):
        data = experience.resident
        image = None if network.classifier is None else torch.randn(len(data), 3, 224, 224)
        sets.append((data.features, image, test.masks.unpacked()))
    folder = Path(tempfile.mkdtemp())

    def call() -> int:
        plain.evaluate(network, sets, folder)
        return sum(len(masks) for _, _, masks in sets)

    return call


def our_metrics() -> Callable[[], object]:
    masks, maps = smooth_maps(METRIC_IMAGES)
    labels = masks.any(axis=(1, 2))

    def call() -> dict[str, float]:
        image = image_metrics(labels, image_score(maps))
        pixel = pixel_metrics(masks, maps)
        return {**{f"image_{k}": v for k, v in image.items()}, **{f"pixel_{k}": v for k, v in pixel.items()}}

    return call


def plain_metrics() -> Callable[[], object]:
    masks, maps = smooth_maps(METRIC_IMAGES)
    return lambda: plain.metrics(masks, maps)


def sides(what: str, given: argparse.Namespace) -> dict[str, Worker]:
    threads = given.threads
    if what == "evaluate":
        shape = (given.evaluate_strategy, given.images, given.preset)
        makers: Any = ((our_evaluation, shape), (plain_evaluation, shape))
    elif what == "metrics":
        makers = ((our_metrics, ()), (plain_metrics, ()))
    elif what == "allocator":
        shape = (given.evaluate_strategy, given.batch, False, given.preset)
        makers = ((our_step, shape), (our_step, (*shape, False)))
    elif what == "loop":
        makers = ((bare_training, ()), (harness_training, ()))
    elif what == "iuf":
        shapes = [(name, given.batch, True, given.preset) for name in ("iuf", "iuf_release")]
        makers = (*((our_step, shape) for shape in shapes), (plain_step, shapes[1]))
    else:
        shape = (what, given.batch, False, given.preset)
        makers = ((our_step, shape), (plain_step, shape))
    own_names = {
        "iuf": ("iuf", "iuf_release", "plain"),
        "loop": ("bare", "iufbench"),
        "allocator": ("kept", "given back"),
    }
    names = own_names.get(what, ("iufbench", "plain"))
    return {name: Worker(make, *args, threads=threads) for name, (make, args) in zip(names, makers)}


def rounded(values: dict[str, float], digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=["uniad", "iuf", "evaluate", "metrics", "loop"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--evaluate-strategy", default="uniad", help="of evaluate and allocator")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that do not count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = []
    for what in given.what:
        timings, peaks = compare(sides(what, given), given.repeats, given.warm_up)
        *fast, slow = timings
        for name in fast:
            times = ratio(timings[slow].cpu, timings[name].cpu)
            walls = ratio(timings[slow].wall, timings[name].wall)
            goal = GOALS.get(name, GOALS.get(what))
            print(
                f"{what}: {slow}/{name} {times.median:.2f} "
                f"({times.low:.2f} to {times.high:.2f}, n={times.count}), wall {walls.median:.2f}, "
                + ("at most 1.10 wanted" if what == "loop" else f"at least {goal} wanted"),
                flush=True,
            )
            results.append({"what": what, "of": name, "ratio": vars(times), "wall_ratio": vars(walls)})
        cpu = {name: Spread.of(t.cpu).median for name, t in timings.items()}
        wall = {name: Spread.of(t.wall).median for name, t in timings.items()}
        results[-1] |= {"cpu_s": cpu, "wall_s": wall, "peak_mib": peaks}
        print(
            f"  CPU s {rounded(cpu, 3)}; wall s {rounded(wall, 3)}; peak MiB {rounded(peaks, 0)}", flush=True
        )
    if given.out is not None:
        settings = {k: v for k, v in vars(given).items() if k not in ("what", "out")}
        write_json(given.out, {"settings": settings, "results": results})


if __name__ == "__main__":
    np.seterr(invalid="ignore")
    main()
