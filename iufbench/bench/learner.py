"""A strategy on random features: trains as a run would, without images, a backbone or downloads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iufbench.cards.protocols import Protocol
from iufbench.cards.registry import announce, foreign_code, load_class
from iufbench.cards.request import Request
from iufbench.cards.strategies import load_strategy, options_of, resolve
from iufbench.data.masks import PackedMasks
from iufbench.data.resident import ResidentData
from iufbench.data.samples import DataSet, Sample
from iufbench.engine.assembly import backbone_spec, build_strategy
from iufbench.engine.plan import MAP_SIZE, Plan
from iufbench.evaluation.objects import ObjectEvaluation, ObjectTest
from iufbench.models.backbone import FrozenBackbone
from iufbench.models.features import FeatureShape
from iufbench.streams import streams

_NOWHERE = Path("/random")


class RandomInputs:
    """Replaces images and backbone: normal features in the recipe's precision, uniform guides."""

    from_files = False

    def __init__(self, shape: FeatureShape, guide_size: int | None, precision: torch.dtype):
        self.shape = shape
        self.guide_size, self.precision = guide_size, precision
        self.generator = torch.Generator().manual_seed(0)

    def load(self, samples: Sequence[Sample], objects: Sequence[int], advance: Any = None) -> ResidentData:
        n, g = len(samples), self.guide_size
        rows = torch.empty((n, *self.shape.row), dtype=self.precision)
        for part in rows.split(256):  # random numbers are generated in single precision
            part.copy_(torch.randn(part.shape, generator=self.generator))
        guide = None
        if g is not None:
            guide = torch.randint(0, 256, (n, 3, g, g), generator=self.generator, dtype=torch.uint8)
        features, vectors = self.shape.unpack(rows)
        return ResidentData(features, torch.tensor(objects, dtype=torch.int64), guide, vectors=vectors)


@dataclass
class Learner:
    """A strategy as ``iufbench run`` builds it, and its streams of random features."""

    plan: Plan
    strategy: Any
    streams: Any
    evaluation: ObjectEvaluation

    def stepper(self, experience: int) -> Callable[[], object]:
        """Each call trains on one mini-batch of ``experience``; its images must form exactly one batch.

        Earlier experiences are trained first, for one epoch each, so that the state a strategy carries from
        one to the next exists.
        """
        for earlier in self.streams.train[:experience]:
            self.strategy.train(earlier, eval_streams=[])
        data = self.streams.train[experience]
        schedule = self.plan.recipe.training(experience)
        if len(data.resident) != schedule.batch_size:
            raise ValueError(f"{len(data.resident)} images are not one batch of {schedule.batch_size}")
        strategy = self.strategy
        strategy.is_training = True
        strategy.model.train()
        strategy.experience = data
        strategy._before_training_exp()
        strategy._before_training_epoch()
        return strategy.training_epoch

    def evaluator(self) -> Callable[[], object]:
        """Each call evaluates every object: forward passes, maps, all metrics."""

        def evaluate() -> object:
            self.evaluation.start(0, len(self.streams.test))
            for number, experience in enumerate(self.streams.test):
                self.strategy.eval([experience], untrained=True)
                self.evaluation.judge(number)
            return self.evaluation.finish()

        return evaluate


def learner_class(target: str, where: Path) -> Any:
    """As ``load_class``; code from outside of the installed packages is announced before it is imported."""
    if foreign := foreign_code(target, where):
        announce(foreign)
    return load_class(target, where)


def build_learner(
    name: str,
    preset: str,
    train: Sequence[Sequence[int]],
    test: int = 2,
    device: str = "cpu",
    settings: Sequence[str] = (),
    precision: str = "fp32",
    compiled: bool = False,
    step: str = "auto",
) -> Learner:
    """Build a strategy and its streams of random features.

    Args:
        name: Name of the strategy.
        preset: ``paper`` or ``quick``.
        train: Numbers of training images of the objects that each experience introduces.
        test: Test images per object, half of them defective.
        device: As for ``iufbench run``.
        settings: Card keys to override, such as ``base.epochs=2``.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        compiled: Use ``torch.compile``.

    Returns:
        The untrained learner.

    Raises:
        InputError: As for ``iufbench run``.
    """
    card = load_strategy(name)
    recipe = resolve(card, "visa", "", preset, settings)
    learner = learner_class(recipe.learner, card.path)
    options = options_of(recipe, learner, str(card.path))
    recipe = dataclasses.replace(recipe, options=dataclasses.asdict(options))
    dataset, groups = random_data(train, test)
    plan = Plan(
        request=Request("random", name, precision=precision, compile=compiled, device=device, step=step),
        protocol=Protocol("random", "random", groups),
        dataset=dataset,
        dataset_card=None,
        card=card,
        recipe=recipe,
        recipe_hash="",
        preset=preset,
        learner=learner,
        options=options,
    )
    return on_random_features(plan, device, test)


def on_random_features(plan: Plan, device: str, test: int) -> Learner:
    """Build the strategy of a plan whose protocol and data come from ``random_data``.

    Args:
        plan: The plan.
        device: Device of the strategy.
        test: Test images per object, as given to ``random_data``.

    Raises:
        InputError: As ``iufbench run`` does.
    """
    recipe, learner = plan.recipe, plan.learner
    frozen = FrozenBackbone(backbone_spec(recipe.backbone, weights="random"))
    inputs = RandomInputs(
        frozen.shape(recipe.image_size),
        learner.guide_size(plan.options, recipe.image_size),
        getattr(torch, recipe.backbone.precision),
    )
    built = streams.build_streams(
        plan.dataset, plan.protocol, inputs, object_id_at_test=learner.uses.object_id_at_test
    )
    evaluation = ObjectEvaluation([_object_test(o, test) for o in plan.protocol.objects], recipe.score)
    strategy = build_strategy(plan, frozen, torch.device(device), evaluation.maps)
    return Learner(plan, strategy, built, evaluation)


def random_data(train: Sequence[Sequence[int]], test: int) -> tuple[DataSet, tuple[tuple[str, ...], ...]]:
    """A data set without files, and the objects of each experience; arguments as for ``build_learner``."""
    samples: list[Sample] = []
    groups: list[tuple[str, ...]] = []
    number = 0
    for counts in train:
        names: list[str] = []
        for count in counts:
            name = f"object{number:03d}"
            number += 1
            names.append(name)
            samples += [Sample(_NOWHERE / f"{name}/{i}", name, "train", 0) for i in range(count)]
            samples += [Sample(_NOWHERE / f"{name}/t{i}", name, "test", i % 2) for i in range(test)]
        groups.append(tuple(names))
    objects = tuple(name for group in groups for name in group)
    return DataSet("random", _NOWHERE, objects, tuple(samples)), tuple(groups)


def _object_test(name: str, images: int) -> ObjectTest:
    masks = random_masks(images, MAP_SIZE)
    labels = np.asarray(masks.any(axis=(1, 2)))
    return ObjectTest(name, labels, PackedMasks.of(masks), [f"{name}/t{i}" for i in range(images)])


def random_masks(images: int, size: int) -> np.ndarray:
    """bool [images, size, size]: a rectangle in every second mask, about 1 % of all pixels."""
    draw = np.random.default_rng(0)
    masks = np.zeros((images, size, size), dtype=bool)
    for mask in masks[1::2]:
        y, x = draw.integers(0, size - size // 6, 2)
        height, width = draw.integers(size // 12, size // 6, 2)
        mask[y : y + height, x : x + width] = True
    return masks
