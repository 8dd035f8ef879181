"""How long the seven full protocols would take: counted operations over a speed that is assumed.

Counts the floating point operations of one training step, of the evaluation and of the backbone on this CPU
(at the paper preset, an image each), takes the official image counts and published epochs, and divides by
``--tflops``. No GPU is measured: on one, `make bench-gpu` projects from its own images a second instead.

Usage: python tests/perf/projection.py [--strategy uniad --strategy iuf ...] [--tflops 10]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from iufbench.bench.learner import build_learner
from iufbench.cards.datasets import dataset_cards
from iufbench.cards.protocols import protocol_cards
from iufbench.cards.strategies import load_strategy, resolve
from iufbench.engine.assembly import backbone_spec
from iufbench.models.backbone import FrozenBackbone

BATCH = 4


def hours(name: str, speeds: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Id and hours of each protocol on MVTec AD and VisA at the paper preset, from images a second of
    ``train``, ``evaluate`` and ``backbone``. Reading and decoding the images once is not in it."""
    data = dataset_cards()
    for protocol in protocol_cards().values():
        if protocol.dataset not in ("mvtec", "visa"):
            continue
        counts = data[protocol.dataset].counts
        recipe = resolve(load_strategy(name), protocol.dataset, protocol.id, "paper")
        trained = evaluated = seen = 0
        images = sum(sum(counts[o].values()) for o in protocol.objects)
        for number, group in enumerate(protocol.experiences):
            schedule = recipe.training(number)
            trained += schedule.epochs_of(number) * sum(counts[o]["train"] for o in group)
            seen += sum(counts[o]["test_good"] + counts[o]["test_defective"] for o in group)
            evaluated += seen
        seconds = trained / speeds["train"] + evaluated / speeds["evaluate"] + images / speeds["backbone"]
        yield protocol.id, seconds / 3600


def operations(name: str) -> dict[str, float]:
    """Floating point operations an image: of a training step, of the evaluation, of the backbone."""
    sizes = [f"{p}.{k}" for p in ("base", "increment") for k in (f"batch_size={BATCH}", "epochs=1")]
    learner = build_learner(name, "paper", [[BATCH], [BATCH]], test=BATCH, settings=sizes)
    step = learner.stepper(1)
    evaluate = learner.evaluator()
    card = learner.plan.recipe.backbone
    backbone, side = FrozenBackbone(backbone_spec(card, weights="random")), learner.plan.recipe.image_size
    images = torch.zeros(BATCH, side, side, 3, dtype=torch.uint8)
    return {
        "train": counted(step) / BATCH,
        "evaluate": counted(evaluate) / (2 * BATCH),
        "backbone": counted(lambda: backbone.features(images)) / BATCH,
    }


def counted(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--strategy", action="append", help="repeatable [default: uniad, iuf, iuf_release]")
    parser.add_argument(
        "--tflops", type=float, default=10.0, help="operations a second / 10^12 [default: 10]"
    )
    given = parser.parse_args()
    for name in given.strategy or ["uniad", "iuf", "iuf_release"]:
        counts = operations(name)
        text = ", ".join(f"{part} {value / 1e9:.2f}" for part, value in counts.items())
        found = dict(hours(name, {part: given.tflops * 1e12 / value for part, value in counts.items()}))
        print(f"{name}: 10^9 operations an image: {text}")
        for protocol, time in found.items():
            print(f"  {protocol}: {time:.2f} h")
        print(
            f"  all {len(found)}: {sum(found.values()):.1f} h at {given.tflops:g} TFLOP/s (assumed)",
            flush=True,
        )


if __name__ == "__main__":
    main()
