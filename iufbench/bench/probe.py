"""Estimates the duration of a run on this machine from a few iterations of its recipe on random features.

The probe trains a few mini-batches of the real size in the base and in the first increment, evaluates one
object and decodes a few of the data set's images. Costs are extrapolated in proportion to images: those of
iterations, of the computations at the end of an experience, of evaluation and of reading. Capturing and
compiling an iteration count once per experience, as in a run. A memory bank that grows with the number of
images costs more in a run than in the probe.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from iufbench.bench.learner import Learner, on_random_features, random_data
from iufbench.bench.timing import synchronising
from iufbench.cards.protocols import Protocol
from iufbench.engine.assembly import backbone_spec, frozen_inputs, set_threads
from iufbench.engine.plan import Plan, image_counts
from iufbench.models.backbone import FrozenBackbone
from iufbench.support.device import choose_device

WARM_UP = 4  # untimed iterations before: a captured iteration is recorded in the second
MEASURED = 10  # iterations, fewer if they take longer than
LIMIT = 4.0  # seconds
BATCHES = 4  # of an epoch of the probe
BANK = 64  # images of an experience for learners without gradients
TESTED = 50  # images of the evaluated object
READ = 12  # images that are decoded and encoded


@dataclass(frozen=True)
class Pace:
    """Seconds that training an experience takes: ``start``, and ``shown`` and ``end`` per image.

    Attributes:
        start: Once, for set-up and capture.
        shown: Per image and epoch, for iterations.
        end: Per image, for computations after the last iteration.
        all_so_far: Whether an epoch covers the images of all experiences so far.
    """

    start: float
    shown: float
    end: float
    all_so_far: bool = False


@dataclass(frozen=True)
class Speeds:
    """What a probe measured: the pace of base and increments, seconds per evaluated and per read image."""

    base: Pace
    increment: Pace
    evaluate: float
    read: float

    def __str__(self) -> str:
        parts = [f"training {_rate(self.base)} images/s in the base, {_rate(self.increment)} in increments"]
        parts += [f"evaluation {1 / self.evaluate:.0f} images/s", f"reading {1 / self.read:.0f} images/s"]
        return "; ".join(parts)


@dataclass(frozen=True)
class Hours:
    """Estimated hours of a run. ``reading``: decoding and encoding all images, unless they are cached."""

    training: float
    evaluation: float
    reading: float

    @property
    def total(self) -> float:
        return self.training + self.evaluation + self.reading


def probe(plan: Plan) -> Speeds:
    """Measure a plan's speeds on its device with its threads, precision and step.

    Args:
        plan: The plan; its images are read, nothing is written.

    Raises:
        InputError: As for ``iufbench run``.
    """
    set_threads(plan)
    device = choose_device(plan.request.device)
    learner = _learner(plan, device)
    base = _pace(learner, 0, device)
    increment = _pace(learner, 1, device) if len(plan.experiences) > 1 else base
    evaluate = _evaluation(learner, device)
    return Speeds(base, increment, evaluate, _reading(plan, device))


def estimated_hours(plan: Plan, speeds: Speeds) -> Hours:
    """Extrapolate measured speeds to the image counts, epochs and evaluations of a plan."""
    counts, train = image_counts(plan), plan.train_counts
    first = plan.parent.experiences if plan.parent else 0
    tests = [counts[name]["test"] + counts[name].get("calibration", 0) for name in plan.protocol.objects]
    training = 0.0
    evaluated = sum(tests) if plan.request.eval_unseen and plan.learner.uses.gradients else 0
    for number, images in enumerate(train):
        due = sum(tests if plan.request.eval_unseen else tests[: plan.seen(number)])
        if number >= first:
            pace = speeds.increment if number else speeds.base
            shown = sum(train[: number + 1]) if pace.all_so_far else images
            training += pace.start + pace.shown * shown * plan.epochs(number) + pace.end * images
            evaluated += due
            if plan.request.diagnose_every is not None:
                evaluated += plan.epochs(number) // plan.request.diagnose_every * due
    read = sum(sum(c.values()) for c in counts.values()) - sum(train[:first])
    return Hours(training / 3600, evaluated * speeds.evaluate / 3600, read * speeds.read / 3600)


def describe(plan: Plan, speeds: Speeds) -> str:
    """The measured speeds and the estimated hours of one run, as two lines."""
    hours = estimated_hours(plan, speeds)
    device = choose_device(plan.request.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU"
    return (
        f"probe      on this machine ({name}{' thread(s)' if device.type == 'cpu' else ''}): {speeds}\n"
        f"time       about {hours.total:.2g} h: training {hours.training:.2g}, evaluation "
        f"{hours.evaluation:.2g}, reading images {hours.reading:.2g} (unless they are cached)"
    )


class _Stopwatch(SupervisedPlugin):
    """Records when iterations start and ends the training after a few."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._synchronise, self._warm_up = synchronising(device), WARM_UP if device.type == "cuda" else 1
        self.begins: list[float] = []
        self.batches = 0  # of an epoch

    def clock(self) -> float:
        if self._synchronise is not None:
            self._synchronise()
        return time.perf_counter()

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if not self.begins:
            self.batches = len(strategy.dataloader)
            self.begins.append(self.clock())

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.begins.append(self.clock())
        warm, now = self._warm_up, self.begins[-1]
        measured = len(self.begins) - 1 - warm
        if measured >= MEASURED or (measured >= 1 and now - self.begins[warm] > LIMIT):
            strategy.stop_training()

    def seconds(self) -> float:
        """The median duration of an iteration after the warm-up (of all, if there were too few)."""
        kept = self.begins[min(self._warm_up, len(self.begins) - 2) :]
        return statistics.median(b - a for a, b in itertools.pairwise(kept))


def _learner(plan: Plan, device: torch.device) -> Learner:
    counts = [_spread(plan, number) for number in range(min(len(plan.experiences), 2))]
    named = image_counts(plan)
    test = min(TESTED, max(2, round(statistics.mean(c["test"] for c in named.values()))))
    dataset, groups = random_data(counts, test)
    recipe = plan.recipe
    blocks = ("base", "increment") if plan.learner.uses.gradients else ()
    for number, block in enumerate(blocks[: len(counts)]):
        # As many iterations as in the run, which decide whether they are compiled, in smaller epochs.
        epochs = -(-plan.epochs(number) * plan.train_counts[number] // sum(counts[number]))
        training = dataclasses.replace(getattr(recipe, block), epochs=max(epochs, WARM_UP + MEASURED))
        recipe = dataclasses.replace(recipe, **{block: training})
    small = dataclasses.replace(
        plan,
        protocol=Protocol("random", "random", groups),
        dataset=dataset,
        dataset_card=None,
        recipe=dataclasses.replace(recipe, stream="incremental"),
        parent=None,
    )
    return on_random_features(small, str(device), test)


def _spread(plan: Plan, number: int) -> list[int]:
    """Images of every object in the probe's experience ``number``."""
    objects, images = len(plan.experiences[number]), plan.train_counts[number]
    most = BATCHES * plan.recipe.training(number).batch_size if plan.learner.uses.gradients else BANK
    each = max(1, min(most, images) // objects)
    return [each] * (objects - 1) + [max(1, min(most, images) - each * (objects - 1))]


def _pace(learner: Learner, number: int, device: torch.device) -> Pace:
    strategy, watch = learner.strategy, _Stopwatch(device)
    experience = learner.streams.train[number]
    here = len(experience.resident)
    trains = learner.plan.learner.uses.gradients
    if trains:
        strategy.plugins.append(watch)
    started = watch.clock()
    for _ in strategy.train_by_epoch(experience):
        pass
    ended = watch.clock()
    if not trains:
        return Pace(0.0, 0.0, (ended - started) / here)
    strategy.plugins.remove(watch)
    step = watch.seconds()
    batch = min(learner.plan.recipe.training(number).batch_size, here)
    iterations = len(watch.begins) - 1
    start = max(0.0, watch.begins[-1] - started - iterations * step)
    covered = watch.batches * batch
    before = sum(len(e.resident) for e in learner.streams.train[:number])
    all_so_far = number > 0 and covered >= before + here
    return Pace(start, step / batch, (ended - watch.begins[-1]) / here, all_so_far)


def _evaluation(learner: Learner, device: torch.device) -> float:
    """Seconds per image: forward passes, maps, metrics."""
    clock = _Stopwatch(device).clock
    taken = [0.0]
    while len(taken) < 3 and taken[-1] < LIMIT:
        started = clock()
        learner.evaluation.start(0, 1)
        learner.strategy.eval([learner.streams.test[0]], untrained=True)
        learner.evaluation.judge(0)
        learner.evaluation.finish()
        taken.append(clock() - started)
    return taken[-1] / len(learner.streams.test[0].resident)


def _reading(plan: Plan, device: torch.device) -> float:
    """Seconds per image: decoding and the backbone, without caches."""
    samples = plan.dataset.select("test", plan.protocol.objects)
    some = samples[:: max(1, len(samples) // READ)][:READ]
    backbone = FrozenBackbone(backbone_spec(plan.recipe.backbone, weights="random"), device)
    inputs = frozen_inputs(plan, device, plan.dataset, backbone)
    inputs.load(some[:1], [0])
    clock = _Stopwatch(device).clock
    started = clock()
    inputs.load(some, [0] * len(some))
    return (clock() - started) / len(some)


def _rate(pace: Pace) -> str:
    return f"{1 / (pace.shown or pace.end):.0f}"


def total_hours(hours: Sequence[Hours], shared: Iterable[str]) -> float:
    """Hours of several runs; those with equal keys in ``shared`` read the same cached images once."""
    read: set[str] = set()
    total = 0.0
    for one, key in zip(hours, shared, strict=True):
        total += one.training + one.evaluation + (0.0 if key and key in read else one.reading)
        read.add(key)
    return total
