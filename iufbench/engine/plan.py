"""From a request to a validated plan: all input errors are detected here, before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iufbench.cards.datasets import DataSetCard, dataset_card, own_card
from iufbench.cards.protocols import Protocol, find_protocol
from iufbench.cards.registry import foreign_code, load_class
from iufbench.cards.request import Request
from iufbench.cards.strategies import (
    PRESETS,
    Backbone,
    Recipe,
    StrategyCard,
    load_strategy,
    options_of,
    resolve,
)
from iufbench.data.calibration import SHARE, set_aside
from iufbench.data.requested import requested_data, requested_protocol
from iufbench.data.samples import DataSet
from iufbench.engine.checks import (
    check_arithmetic,
    check_data,
    check_learner,
    check_results_folder,
    check_results_outside,
    check_step,
    check_weights,
)
from iufbench.metrics.thresholds import Rule, read_rule
from iufbench.reporting.record import Parent, run_id, run_path
from iufbench.streams.schedule import train_samples
from iufbench.support.errors import InputError

MAP_SIZE = 224  # anomaly maps and masks are compared at 224x224, as UniAD and IUF do


@dataclass(frozen=True)
class Plan:
    """A resolved request. ``learner`` is the strategy class, ``options`` its card blocks; ``parent`` is the
    run that has trained the first experiences, ``bits`` the depth by which a run that is evaluated or
    extended has scaled 16-bit images."""

    request: Request
    protocol: Protocol
    dataset: DataSet
    dataset_card: DataSetCard | None
    card: StrategyCard
    recipe: Recipe
    recipe_hash: str
    preset: str
    learner: Any
    options: Any
    parent: Parent | None = None
    bits: int | None = None

    @property
    def rule(self) -> Rule | None:
        """The rule of decision thresholds; None for a run without."""
        return None if self.request.threshold is None else read_rule(self.request.threshold)

    @property
    def id(self) -> str:
        return run_id(
            self.dataset.name, self.protocol.id, self.card.name, self.recipe_hash, self.request.seed
        )

    @property
    def path(self) -> Path:
        return run_path(
            self.request.results,
            self.dataset.name,
            self.protocol.id,
            self.card.name,
            self.recipe_hash,
            self.request.seed,
        )

    @property
    def experiences(self) -> tuple[tuple[str, ...], ...]:
        """The objects of each experience: those of the protocol, or all objects in one for ``joint``."""
        return (self.protocol.objects,) if self.recipe.stream == "joint" else self.protocol.experiences

    def epochs(self, experience: int) -> int:
        """Epochs of an experience (from 0). A learner without gradients processes its images once, whatever
        the schedule on the card."""
        return self.recipe.training(experience).epochs_of(experience) if self.learner.uses.gradients else 1

    @property
    def train_counts(self) -> list[int]:
        """Number of training images of every experience."""
        joint = self.recipe.stream == "joint"
        return list(map(len, train_samples(self.dataset, self.protocol, joint, self.request.seed)))

    def seen(self, number: int) -> int:
        """How many of the protocol's objects have been trained on after experience ``number`` (from 0)."""
        return len({name for group in self.experiences[: number + 1] for name in group})


BeforeCode = Callable[[str], None]


def prepare(
    request: Request,
    progress: bool = True,
    found: tuple[Protocol, DataSet | None] | None = None,
    before_code: BeforeCode = lambda text: None,
) -> Plan:
    """Resolve and validate a request. Writes nothing except synthetic images in the cache on first use.

    Args:
        request: What to run.
        progress: Show a bar while synthetic images are generated.
        found: The requested protocol, and its data, if they are known already.
        before_code: Called with ``cards.registry.foreign_code`` before a learner is imported that belongs
            neither to iufbench nor to an installed plug-in; may raise.

    Returns:
        The plan.

    Raises:
        InputError: The request is invalid.
    """
    dataset_name, _ = find_protocol(request.protocol)
    card = load_strategy(request.strategy)
    own = own_card(dataset_name, request.card)
    if own is not None:  # can be read again from any working directory
        request = dataclasses.replace(request, card=own.absolute())
    about = dataset_card(dataset_name, own)
    if request.synthetic and request.data_root is not None:
        raise InputError("--synthetic and --data-root cannot be given together")
    if request.preset is not None and request.preset not in PRESETS:
        raise InputError(f"unknown preset '{request.preset}' (allowed: {', '.join(PRESETS)})")
    request = _with_threshold(request)
    check_results_folder(request.results)
    protocol = requested_protocol(request) if found is None else found[0]
    if protocol.stream is not None and protocol.stream.kind == "drift":
        # Each level is also tested before it is trained on: this is the purpose of a drift.
        request = dataclasses.replace(request, eval_unseen=True)

    def recipe_for(preset: str) -> tuple[Recipe, Any, Any]:
        return resolve_recipe(request, card, dataset_name, protocol, preset, before_code)

    # The recipe is checked before data are generated or read, so that typing errors are reported at once.
    first_guess = request.preset or ("quick" if request.synthetic else "paper")
    first_recipe, first_learner, _ = recipe_for(first_guess)
    request = dataclasses.replace(request, precision=_precision(request, first_learner))
    check_step(request, first_learner, first_recipe)
    given = None if found is None else found[1]
    dataset = requested_data(request, protocol, progress) if given is None else given
    if request.calibration is None:
        check_data(
            dataset, protocol, "; for decisions from good images alone add --threshold 'quantile 0.95'"
        )
    else:
        dataset = set_aside(
            dataset, dataset.objects if given else protocol.objects, request.calibration, request.seed
        )
    train_samples(dataset, protocol, seed=request.seed)  # raises if a stream needs more images than exist
    if about is None and request.lists is None:
        check_results_outside(request.results, dataset.root)
    usual = "quick" if dataset.synthetic else (about.preset if about else "paper")
    preset = request.preset or usual
    recipe, learner, options = recipe_for(preset)
    return Plan(
        request=request,
        protocol=protocol,
        dataset=dataset,
        dataset_card=about,
        card=card,
        recipe=recipe,
        recipe_hash=identity_of(recipe, request),
        preset=preset,
        learner=learner,
        options=options,
    )


def resolve_recipe(
    request: Request,
    card: StrategyCard,
    dataset: str,
    protocol: Protocol,
    preset: str,
    before_code: BeforeCode = lambda text: None,
) -> tuple[Recipe, Any, Any]:
    """Resolve a card for a data set, protocol and preset.

    Args:
        request: The request, with overrides of the card.
        card: The strategy card.
        dataset: Name of the data set.
        protocol: The protocol.
        preset: Name of the preset.
        before_code: As for ``prepare``.

    Returns:
        Recipe, strategy class and its options.

    Raises:
        InputError: The card, a setting or the weights file is invalid.
    """
    recipe = resolve(card, dataset, _card_id(protocol), preset, request.settings, _overrides(request))
    foreign = foreign_code(recipe.learner, card.path)
    if foreign:
        before_code(foreign)
    learner = load_class(recipe.learner, card.path)
    check_learner(learner, recipe, card)
    check_arithmetic(request, learner)
    check_weights(recipe.backbone.weights)
    options = options_of(recipe, learner, "--set" if request.settings else str(card.path))
    return dataclasses.replace(recipe, options=dataclasses.asdict(options)), learner, options


def _with_threshold(request: Request) -> Request:
    """The request with its threshold rule in normal form and the share of calibration images."""
    if request.threshold is None:
        if request.calibration is not None:
            raise InputError("--calibration belongs to --threshold")
        return request
    share = SHARE if request.calibration is None else request.calibration
    if not 0 < share < 1:
        raise InputError(f"--calibration {share:g}: the share of training images must be above 0 and below 1")
    return dataclasses.replace(request, threshold=str(read_rule(request.threshold)), calibration=share)


def _card_id(protocol: Protocol) -> str:
    """The protocol id without order and stream: schedules do not depend on them."""
    return protocol.id.partition("+")[0].partition("@")[0]


def _overrides(request: Request) -> dict[str, Any]:
    backbone = {}
    if request.backbone is not None:
        # A backbone given by name comes with its own weights and layers, not with the card's.
        backbone = dataclasses.asdict(Backbone(name=request.backbone))
        del backbone["vector"]  # per-image vectors are determined by the strategy
        if request.backbone == "tf_efficientnet_lite0":
            backbone["weights"] = "package"
    if request.weights is not None:
        backbone["weights"] = request.weights
    return {"backbone": backbone} if backbone else {}


def _precision(request: Request, learner: Any) -> str:
    """The resolved precision of matrix products, which is part of the run's identity."""
    from iufbench.support.device import choose_precision

    return choose_precision(request.precision, request.device) if learner.uses.gradients else "fp32"


def identity_of(recipe: Recipe, request: Request) -> str:
    """The recipe's hash; weight files are identified by content, not by path.

    Options that affect scores but are not in the card are included if they differ from the default.
    """
    weights = Path(recipe.backbone.weights)
    if weights.is_file():
        backbone = dataclasses.replace(recipe.backbone, weights=_content_hash(weights))
        recipe = dataclasses.replace(recipe, backbone=backbone)
    beside: dict[str, Any] = {}
    if request.init_from is not None:
        beside["init_from"] = _content_hash(request.init_from)
    if request.precision != "fp32":
        beside["precision"] = request.precision
    if request.compile:
        beside["compile"] = True
    if request.threshold is not None:
        beside |= {"threshold": request.threshold, "calibration": request.calibration}
    return dataclasses.replace(recipe, options={**recipe.options, **beside}).fingerprint()


def _content_hash(path: Path) -> str:
    if path.exists() and not path.is_file():  # a pipe or device may never end
        raise InputError(f"{path}: is not a regular file")
    try:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Split ``a,b,c`` into a tuple; None stays None. Raises InputError for a text without any name."""
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise InputError(f"'{text}' contains no names: separate names by commas, such as a,b,c")
    return names


def image_counts(plan: Plan) -> dict[str, dict[str, int]]:
    """The number of training, test and calibration images that the run uses, per object."""
    counts = counts_of(plan.dataset, plan.protocol, plan.request.seed)
    for name, images in Counter(sample.object for sample in plan.dataset.calibration).items():
        counts[name]["calibration"] = images
    return counts


def counts_of(dataset: DataSet, protocol: Protocol, seed: int) -> dict[str, dict[str, int]]:
    """The number of training and test images of a protocol, per object."""
    groups = train_samples(dataset, protocol, seed=seed)
    trained = Counter(sample.object for group in groups for sample in group)
    tested = Counter(sample.object for sample in dataset.select("test"))
    return {name: {"train": trained[name], "test": tested[name]} for name in protocol.objects}


def iterations(plan: Plan, train_counts: Sequence[int]) -> list[int]:
    """The number of training iterations of every experience, from its number of images."""
    result = []
    for number, images in enumerate(train_counts):
        result.append(plan.epochs(number) * -(-images // plan.recipe.training(number).batch_size))
    return result
