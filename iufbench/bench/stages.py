"""The stages of a run as calls to be timed, each on synthetic input of the preset's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from iufbench.bench import STAGES
from iufbench.bench.learner import build_learner, learner_class, random_masks
from iufbench.bench.timing import Spread, synchronising, take_turns
from iufbench.cards.strategies import load_strategy, resolve
from iufbench.data.images import load_image
from iufbench.engine.assembly import backbone_spec
from iufbench.engine.plan import MAP_SIZE
from iufbench.metrics.image import image_metrics, image_score
from iufbench.metrics.pixel import pixel_metrics
from iufbench.models.backbone import FrozenBackbone
from iufbench.support.device import choose_device
from iufbench.support.errors import InputError

TEST_IMAGES = 50  # of an object, in the evaluation stage
METRIC_IMAGES = 150
PHOTO = (1284, 1168)  # about the size of a VisA photograph


@dataclass(frozen=True)
class Conditions:
    """Measurement conditions; ``batch`` None means the card's batch size."""

    preset: str = "quick"
    strategies: tuple[str, ...] = ("uniad", "iuf")
    stages: tuple[str, ...] = STAGES
    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False
    batch: int | None = None
    repeats: int = 5
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """The timing of one stage: seconds per call, and images per call."""

    stage: str
    item: str
    images: int
    cpu: Spread
    wall: Spread

    @property
    def images_per_s(self) -> float:
        return self.images / self.wall.median


@dataclass(frozen=True)
class _Work:
    item: str
    images: int
    call: Callable[[], object]


def measure(conditions: Conditions) -> Iterator[Row]:
    """Yield each row once it is measured. Raises InputError for unknown stages, strategies and devices."""
    device = choose_device(conditions.device)
    for stage in conditions.stages:
        if stage not in STAGES:
            raise InputError(f"unknown stage '{stage}' (allowed: {', '.join(STAGES)})")
    for name in conditions.strategies:
        _check_trained(name, conditions)
    synchronise = synchronising(device)
    makers = {"decode": _decode, "backbone": _backbone, "step": _steps, "evaluate": _evaluate}
    makers["metrics"] = _metrics
    for stage in STAGES:
        if stage in conditions.stages:
            for work in makers[stage](conditions):
                timing = take_turns({"": work.call}, conditions.repeats, synchronise)[""]
                yield Row(stage, work.item, work.images, Spread.of(timing.cpu), Spread.of(timing.wall))


def _check_trained(name: str, conditions: Conditions) -> None:
    card = load_strategy(name)
    recipe = resolve(card, "visa", "", conditions.preset, conditions.settings)
    if not learner_class(recipe.learner, card.path).uses.gradients:
        raise InputError(f"'{name}' trains no network, so it has no training step: leave it out")


def _decode(conditions: Conditions) -> Iterator[_Work]:
    size = resolve(load_strategy(conditions.strategies[0]), "visa", "", conditions.preset).image_size
    with TemporaryDirectory() as folder:
        paths = photographs(Path(folder), 8)

        def decode() -> None:
            for path in paths:
                load_image(path, size)

        yield _Work(f"JPEG {PHOTO[0]}x{PHOTO[1]} to {size}", len(paths), decode)


def photographs(folder: Path, count: int) -> list[Path]:
    """Create ``count`` JPEG files with as much detail as photographs."""
    draw = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC), dtype=np.int16)
        grain = draw.integers(-6, 7, smooth.shape, dtype=np.int16)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


def _backbone(conditions: Conditions) -> Iterator[_Work]:
    recipe = resolve(load_strategy(conditions.strategies[0]), "visa", "", conditions.preset)
    card = recipe.backbone
    backbone = FrozenBackbone(backbone_spec(card, weights="random"), choose_device(conditions.device))
    shape = (16, recipe.image_size, recipe.image_size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    yield _Work(f"{card.name} at {recipe.image_size}", len(images), lambda: backbone.features(images))


def _batch(name: str, conditions: Conditions) -> tuple[int, list[str]]:
    """The batch size, and the settings for an epoch of a single batch."""
    recipe = resolve(load_strategy(name), "visa", "", conditions.preset, conditions.settings)
    batch = conditions.batch or recipe.base.batch_size
    parts = (f"{part}.{key}" for part in ("base", "increment") for key in (f"batch_size={batch}", "epochs=1"))
    return batch, [*conditions.settings, *parts]


def _steps(conditions: Conditions) -> Iterator[_Work]:
    for name in conditions.strategies:
        for experience, kind in enumerate(("base", "increment")):
            yield step_work(name, conditions, experience, f"{name} {kind}")


def step_work(name: str, conditions: Conditions, experience: int, item: str) -> _Work:
    """One training step of a strategy on cached features, in the base or in an increment."""
    batch, settings = _batch(name, conditions)
    counts: list[list[int]] = [[batch - batch // 2, batch // 2] if batch > 1 else [1], [batch]]
    learner = build_learner(
        name,
        conditions.preset,
        counts[: experience + 1],
        device=conditions.device,
        settings=settings,
        precision=conditions.precision,
        compiled=conditions.compiled,
    )
    return _Work(item, batch, learner.stepper(experience))


def _evaluate(conditions: Conditions) -> Iterator[_Work]:
    objects = 4
    for name in conditions.strategies:
        _, settings = _batch(name, conditions)
        learner = build_learner(
            name,
            conditions.preset,
            [[1] * objects],
            test=TEST_IMAGES,
            device=conditions.device,
            settings=settings,
            precision=conditions.precision,
        )
        learner.strategy.train(learner.streams.train[0], eval_streams=[])
        yield _Work(name, objects * TEST_IMAGES, learner.evaluator())


def _metrics(conditions: Conditions) -> Iterator[_Work]:
    masks, maps = smooth_maps(METRIC_IMAGES)
    labels = np.asarray(masks.any(axis=(1, 2)))

    def compute() -> None:
        image_metrics(labels, image_score(maps))
        pixel_metrics(masks, maps)

    yield _Work(f"one object at {MAP_SIZE}", len(maps), compute)


def smooth_maps(images: int, size: int = MAP_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Masks and anomaly maps [images, size, size], about as smooth and discriminative as real ones."""
    masks = random_masks(images, size)
    coarse = torch.rand(images, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
    return masks, (fine[:, 0].numpy() + 0.5 * masks).astype(np.float32)


def as_dict(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A row as plain values: median, minimum, maximum of seconds per call, and number of measurements."""
    return [
        {
            "stage": row.stage,
            "item": row.item,
            "images": row.images,
            "cpu_s": vars(row.cpu),
            "wall_s": vars(row.wall),
            "images_per_s": row.images_per_s,
        }
        for row in rows
    ]
