"""Benchmarks and strategies for the user's own programs with Avalanche's training loop."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from iufbench.cards.request import Request
from iufbench.data.residency import home_for
from iufbench.data.survey import surveyed
from iufbench.engine.assembly import (
    build_context,
    build_strategy,
    frozen_inputs,
    load_backbone,
    object_tests,
)
from iufbench.engine.plan import Plan, image_counts, prepare
from iufbench.evaluation.anomaly import anomaly_metrics
from iufbench.evaluation.curves import training_metrics
from iufbench.learning.context import Context
from iufbench.models.backbone import FrozenBackbone
from iufbench.streams.benchmark import AnomalyBenchmark
from iufbench.streams.streams import Loaded, load_streams
from iufbench.support.device import choose_device
from iufbench.support.errors import InputError
from iufbench.support.folders import cache_folder
from iufbench.support.progress import Progress
from iufbench.support.seeding import Seeds, derive, seed_everything


class Benchmark(AnomalyBenchmark):
    """The result of ``make_benchmark``: an Avalanche benchmark that knows how its inputs were computed."""

    def __init__(
        self, plan: Plan, backbone: FrozenBackbone, loaded: Loaded, ids_at_test: bool, progress: Progress
    ) -> None:
        super().__init__(loaded, object_tests(plan, surveyed(plan.dataset), loaded.tests))
        self.plan, self.backbone, self.ids_at_test = plan, backbone, ids_at_test
        self.device = choose_device(plan.request.device)
        self.guide_size: int | None = None  # of the small images used by some strategies, once read
        self._progress = progress

    def plan_of(self, strategy: str, seed: int = 0, settings: Sequence[str] = ()) -> Plan:
        """Resolve the card of a strategy on this benchmark.

        Raises InputError if the strategy cannot be trained on it, and as ``iufbench run`` does.
        """
        own = self.plan.request
        request = dataclasses.replace(own, strategy=strategy, seed=seed, settings=(*own.settings, *settings))
        plan = prepare(request, progress=False)
        mine, its = self.plan.recipe, plan.recipe
        hint = f"iufbench.make_benchmark('{own.protocol}', strategy='{strategy}', ...)"
        if (its.backbone, its.image_size) != (mine.backbone, mine.image_size):
            raise InputError(
                f"'{strategy}' takes {its.backbone.name} at {its.image_size} px, this benchmark has "
                f"{mine.backbone.name} at {mine.image_size} px: use {hint}"
            )
        if its.stream != mine.stream:
            raise InputError(f"'{strategy}' takes a stream that is {its.stream}: use {hint}")
        if plan.learner.uses.object_id_at_test and not self.ids_at_test:
            raise InputError(
                f"'{strategy}' uses object ids at test, which this benchmark hides: "
                f"use {hint} or object_ids_at_test=True"
            )
        return plan

    def context(self, strategy: str, seed: int = 0, settings: Sequence[str] = ()) -> Context:
        """The context for constructing a strategy class directly: ``UniAD(context=..., model=...)``.

        Args:
            strategy: Name of a strategy, or path of a card.
            seed: Seed of everything random in the strategy.
            settings: Card keys to override, such as ``("base.epochs=2",)``.

        Returns:
            The context.

        Raises:
            InputError: As for ``make_strategy``.
        """
        return self._context(self.plan_of(strategy, seed, settings))

    def _context(self, plan: Plan) -> Context:
        self._need_guides(plan)
        return build_context(plan, self.backbone, self.device)

    def _need_guides(self, plan: Plan) -> None:
        """Load the guide images that a strategy uses, unless they are already loaded."""
        size = plan.learner.guide_size(plan.options, plan.recipe.image_size)
        if size is None or size == self.guide_size:
            return
        if self.guide_size is not None:
            raise InputError(
                f"'{plan.card.name}' uses images of {size} px, and this benchmark holds those of "
                f"{self.guide_size} px for another strategy: make a separate benchmark for it"
            )
        self.use_guides(_load(plan, self.backbone, self.ids_at_test, self._progress, guides=True))
        self.guide_size = size


def make_benchmark(
    protocol: str,
    *,
    data_root: Path | str | None = None,
    synthetic: bool = False,
    data_seed: int = 0,
    lists: tuple[Path, Path] | None = None,
    strategy: str = "uniad",
    preset: str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    order: Sequence[str] | None = None,
    order_seed: int | None = None,
    object_ids_at_test: bool | None = None,
    device: str = "auto",
    cache: bool = True,
    progress: bool = False,
) -> Benchmark:
    """Create a protocol as an Avalanche benchmark, with all images encoded by a frozen backbone.

    The benchmark is not sealed: streams can be iterated, and test experiences carry the ground truth of their
    images for the metrics (``experience.truth``). Runs of ``iufbench run`` are sealed.

    Args:
        protocol: Id, alias, or ``<dataset>_<X>_<Y>[x<N>]``, such as ``visa_8_1x4``.
        data_root: Folder of the data set; by default ``$IUFBENCH_DATA/<dataset>``.
        synthetic: Use the synthetic stand-in data set.
        data_seed: Seed of the synthetic data set.
        lists: IUF/UniAD JSON-lines lists of training and test images.
        strategy: Its card determines the backbone, the image size and the stream; ``joint`` has all objects
            in one experience.
        preset: ``paper`` or ``quick``; by default ``quick`` on synthetic data.
        backbone: Overrides the card's backbone.
        weights: Overrides the weights of the backbone.
        image_size: Overrides the card's image size.
        order: Custom order of the objects.
        order_seed: Shuffle the objects with this seed.
        object_ids_at_test: Whether test batches carry object ids; by default only if ``strategy`` uses them.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        cache: Keep decoded images and features on disk for later use.
        progress: Show progress on standard error.

    Returns:
        A benchmark with ``train_stream`` (one experience per step) and ``test_stream`` (one per object).

    Raises:
        InputError: The protocol is unknown, data are missing, or ``iufbench run`` would reject the input.
    """
    request = Request(
        protocol=protocol,
        strategy=strategy,
        data_root=None if data_root is None else Path(data_root),
        synthetic=synthetic,
        data_seed=data_seed,
        lists=lists,
        preset=preset,
        backbone=backbone,
        weights=weights,
        device=device,
        settings=() if image_size is None else (f"image_size={image_size}",),
        order=None if order is None else tuple(order),
        order_seed=order_seed,
        cache=cache,
    )
    shown = Progress(0 if progress else -1)
    plan = prepare(request, progress=progress)
    frozen = load_backbone(plan, choose_device(device))
    ids = plan.learner.uses.object_id_at_test if object_ids_at_test is None else object_ids_at_test
    return Benchmark(plan, frozen, _load(plan, frozen, ids, shown), ids, shown)


def make_strategy(
    strategy: str,
    benchmark: Benchmark,
    *,
    seed: int = 0,
    settings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    loggers: Sequence[Any] = (),
    evaluator: EvaluationPlugin | None = None,
    **arguments: Any,
) -> Any:
    """Create an untrained Avalanche strategy for a benchmark.

    ``for e in benchmark.train_stream: strategy.train(e); strategy.eval(benchmark.test_stream)`` reproduces
    the results of ``iufbench run`` with the same card, data and seed.

    Args:
        strategy: Name of a strategy, or path of a card.
        benchmark: A benchmark created by ``make_benchmark``.
        seed: Seed of all random numbers; every experience starts from a seed derived from it.
        settings: Card keys to override, such as ``("base.epochs=2", "increment.epochs=2")``.
        plugins: Avalanche plugins; docs/avalanche.md lists those that are supported.
        loggers: Avalanche loggers for the default evaluator.
        evaluator: Replaces the default evaluator with ``training_metrics()`` and ``anomaly_metrics()``.
        arguments: ``model``, ``optimizer``, ``train_mb_size``, ``train_epochs``, ``eval_mb_size``,
            ``eval_every``, ``peval_mode``, as for any Avalanche strategy.

    Returns:
        The strategy.

    Raises:
        InputError: The strategy or a key is unknown, the strategy cannot be trained on this benchmark, or a
            plugin is not supported.
    """
    if not isinstance(benchmark, Benchmark):
        raise InputError("make_strategy needs a benchmark created by iufbench.make_benchmark")
    if evaluator is not None and loggers:
        raise InputError("give loggers to your evaluator: EvaluationPlugin(..., loggers=[...])")
    plan = benchmark.plan_of(strategy, seed, settings)
    benchmark._need_guides(plan)
    return build_strategy(
        plan,
        benchmark.backbone,
        benchmark.device,
        SeededExperiences(Seeds.of(seed)),
        *plugins,
        evaluator=_evaluator(loggers) if evaluator is None else evaluator,
        **arguments,
    )


class SeededExperiences(SupervisedPlugin):
    """Starts every experience from its own seed, as ``iufbench run`` does, regardless of earlier runs."""

    def __init__(self, seeds: Seeds) -> None:
        super().__init__()
        self.seeds = seeds

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        seed_everything(derive(self.seeds.training, strategy.experience.current_experience))


def _load(
    plan: Plan, backbone: FrozenBackbone, ids_at_test: bool, progress: Progress, guides: bool = False
) -> Loaded:
    dataset = surveyed(plan.dataset)
    inputs = frozen_inputs(plan, backbone.device, dataset, backbone)
    if not guides:
        inputs.guide_size = None
    total = sum(sum(counts.values()) for counts in image_counts(plan).values())
    inputs.home = home_for(total * inputs.image_bytes, backbone.device, cache_folder())
    if plan.request.cache:
        inputs.use_cache(cache_folder(), dataset, progress)
    with progress.bar("reading images", total) as bar:
        joint = plan.recipe.stream == "joint"
        return load_streams(
            dataset, plan.protocol, inputs, joint, bar.advance, ids_at_test, plan.request.seed
        )


def _evaluator(loggers: Sequence[Any]) -> EvaluationPlugin:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin(training_metrics(), anomaly_metrics(), loggers=list(loggers))
