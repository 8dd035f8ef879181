"""Builds the parts of a run from a plan: inputs, streams, evaluation, strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from iufbench.cards.strategies import Backbone
from iufbench.data.cache.features import encode_images
from iufbench.data.residency import home_for
from iufbench.data.resident import FrozenInputs
from iufbench.data.samples import DataSet, Sample
from iufbench.data.survey import surveyed
from iufbench.engine.plan import MAP_SIZE, Plan, image_counts
from iufbench.evaluation.objects import ObjectEvaluation, ObjectTest
from iufbench.learning.context import Context
from iufbench.models.backbone import BackboneSpec, FrozenBackbone
from iufbench.models.checkpoints import load_public_weights
from iufbench.models.features import FeatureShape
from iufbench.models.weights import read_state_dict
from iufbench.streams import streams
from iufbench.support.allocator import keep_freed_memory
from iufbench.support.device import set_products
from iufbench.support.errors import InputError
from iufbench.support.folders import cache_folder
from iufbench.support.progress import Progress
from iufbench.support.seeding import Seeds, seed_everything


@dataclass
class Parts:
    """The parts of a run, with weights and images loaded."""

    streams: Any
    strategy: Any
    evaluation: ObjectEvaluation
    backbone: FrozenBackbone
    dataset: DataSet  # with the decoding and notes of the survey of its images

    @property
    def mask_doubts(self) -> list[str]:
        """Likely faults of the masks, one line per object and kind of fault."""
        found = (doubt for test in self.evaluation.tests for doubt in test.doubts)
        return [f"masks of {doubt.object}: {doubt.message}" for doubt in found]


def set_threads(plan: Plan) -> None:
    """``--threads``, else one for the quick preset and torch's own choice for others.

    The quick preset's network is too small to benefit from a second thread and slows down when cores are
    busy; with one thread its results do not depend on the number of cores.
    """
    threads = plan.request.threads or (1 if plan.preset == "quick" else None)
    if threads is not None:
        torch.set_num_threads(threads)


def load_backbone(plan: Plan, device: torch.device) -> FrozenBackbone:
    """The plan's frozen backbone. Raises InputError for unknown names and missing or mismatched weights."""
    return FrozenBackbone(backbone_spec(plan.recipe.backbone), device)


def backbone_spec(card: Backbone, weights: str | None = None) -> BackboneSpec:
    """The specification in a card's ``backbone`` block, with other ``weights`` if given."""
    given = dataclasses.asdict(card)
    del given["precision"]  # the features are rounded to it, not the backbone
    return BackboneSpec(**{**given, **({} if weights is None else {"weights": weights})})


def frozen_inputs(
    plan: Plan, device: torch.device, dataset: DataSet, backbone: FrozenBackbone | None = None
) -> FrozenInputs:
    """Build the inputs of the plan's learner for the images of a data set.

    Args:
        plan: The plan.
        device: Where the backbone runs.
        dataset: The images, as returned by ``surveyed``.
        backbone: The plan's backbone, if it is already loaded.

    Returns:
        The inputs.

    Raises:
        InputError: As for ``load_backbone``, or the guide (the small image of the learner) is larger than the
            image.
    """
    recipe = plan.recipe
    guide = plan.learner.guide_size(plan.options, recipe.image_size)
    if guide is not None and guide > recipe.image_size:
        raise InputError(
            f"the learner's image resolution {guide} is larger than image_size {recipe.image_size}"
        )
    precision = getattr(torch, recipe.backbone.precision)
    backbone = backbone or load_backbone(plan, device)
    feature_shape(plan, backbone)
    return FrozenInputs(backbone, recipe.image_size, guide, precision, dataset.decoding)


def assemble(plan: Plan, device: torch.device, progress: Progress, compare_cache: bool = False) -> Parts:
    """Load weights, decode and encode every image once, read the masks, build the strategy.

    ``compare_cache``: recompute a sample of the cached data and compare it before the caches are used.
    """
    set_threads(plan)
    keep_freed_memory()
    recipe = plan.recipe
    dataset = surveyed(plan.dataset, plan.bits)
    inputs = frozen_inputs(plan, device, dataset)
    backbone = inputs.backbone
    first = plan.parent.experiences if plan.parent else 0
    counts = image_counts(plan)
    total = sum(sum(c.values()) for c in counts.values()) - sum(plan.train_counts[:first])
    inputs.home = home_for(total * inputs.image_bytes, device, cache_folder())
    if inputs.home.kind == "mapped":
        progress.say(f"the inputs do not fit into memory: they are mapped from a file in {cache_folder()}")
    if plan.request.cache:
        inputs.use_cache(cache_folder(), _needed(plan, dataset, first), progress, compare_cache)
    with progress.bar("reading images", total) as bar:
        built = streams.build_streams(
            dataset,
            plan.protocol,
            inputs,
            joint=recipe.stream == "joint",
            advance=bar.advance,
            object_id_at_test=plan.learner.uses.object_id_at_test,
            seed=plan.request.seed,
            first=first,
        )
    tests, names = object_tests(plan, dataset, built.tests), calibration_names(plan, dataset)
    evaluation = ObjectEvaluation(tests, recipe.score, plan.rule, names)
    strategy = build_strategy(plan, backbone, device, evaluation.maps)
    if plan.request.init_from is not None:
        source = plan.request.init_from
        load_public_weights(strategy.model, read_state_dict(source), str(source))
    return Parts(built, strategy, evaluation, backbone, dataset)


def _needed(plan: Plan, dataset: DataSet, first: int) -> DataSet:
    """The data set without the training images of experiences before ``first``; those that thresholds are
    calibrated on stay."""
    learnt = {name for group in plan.experiences[:first] for name in group}
    aside = {s.image for s in dataset.calibration}
    kept = tuple(
        s for s in dataset.samples if s.split != "train" or s.object not in learnt or s.image in aside
    )
    return dataclasses.replace(dataset, samples=kept) if learnt else dataset


def calibration_names(plan: Plan, dataset: DataSet) -> list[list[str]]:
    """The calibration images of every object, as paths relative to the data root."""
    groups = (dataset.calibrating(name) for name in plan.protocol.objects)
    return [[s.image.relative_to(dataset.root).as_posix() for s in group] for group in groups]


def object_tests(plan: Plan, dataset: DataSet, tests: Sequence[Sequence[Sample]]) -> list[ObjectTest]:
    """The ground truth of the test images of every object; ``tests``: samples in the order of the stream."""
    card = plan.dataset_card
    kinds, without = (card.kinds, card.without) if card else ({}, ())
    masked = {name: dataset.decoding if dataset.is_masked(name) else None for name in plan.protocol.objects}
    return [
        ObjectTest.of(n, s, dataset.root, MAP_SIZE, masked[n], kinds, without, plan.experiences)
        for n, s in zip(plan.protocol.objects, tests)
    ]


def build_strategy(
    plan: Plan, backbone: FrozenBackbone, device: torch.device, *plugins: Any, **arguments: Any
) -> Any:
    """The plan's strategy with a freshly initialised network, before any training.

    ``plugins`` and ``arguments``: as for any Avalanche strategy.
    """
    context = build_context(plan, backbone, device)
    seed_everything(context.seeds.initialisation)
    return plan.learner(context=context, plugins=list(plugins), **arguments)


def feature_shape(plan: Plan, backbone: FrozenBackbone) -> FeatureShape:
    """The shape of the plan's features. Raises InputError, naming the card, for an unsuitable image size."""
    try:
        return backbone.shape(plan.recipe.image_size)
    except InputError as error:
        set_here = any(setting.startswith("image_size=") for setting in plan.request.settings)
        raise InputError(f"{'--set image_size' if set_here else plan.card.path}: {error}") from error


def build_context(plan: Plan, backbone: FrozenBackbone, device: torch.device) -> Context:
    """The context with which the plan's strategy is constructed."""
    shape = feature_shape(plan, backbone)
    set_products(plan.request.precision)
    return Context(
        recipe=plan.recipe,
        options=plan.options,
        channels=backbone.channels,
        groups=backbone.groups,
        vector=shape.vector,
        feature_size=(shape.height, shape.width),
        map_size=MAP_SIZE,
        device=device,
        seeds=Seeds.of(plan.request.seed),
        pixel_mean=tuple(backbone.mean),
        pixel_std=tuple(backbone.std),
        precision=plan.request.precision,
        compile=plan.request.compile,
        step=plan.request.step,
        encode=partial(encode_images, backbone, getattr(torch, plan.recipe.backbone.precision)),
    )


def parameter_counts(plan: Plan) -> dict[str, int]:
    """Parameter counts of the network that the plan would train; backbone weights are not needed."""
    device = torch.device("cpu")
    backbone = FrozenBackbone(backbone_spec(plan.recipe.backbone, weights="random"), device)
    return count_parameters(build_strategy(plan, backbone, device))


def count_parameters(strategy: Any) -> dict[str, int]:
    """``parameters_total`` and ``parameters_trainable`` of the strategy's model as it is now."""
    parameters = list(strategy.model.parameters())
    return {
        "parameters_total": sum(p.numel() for p in parameters),
        "parameters_trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }
