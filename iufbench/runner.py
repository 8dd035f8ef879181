"""The one loop: for each experience train, evaluate, record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin

from iufbench import __version__
from iufbench.allocator import keep_freed_memory
from iufbench.checkpoint import Saver, record_evaluated, save_checkpoint
from iufbench.context import Context
from iufbench.data.datasets import cache_folder
from iufbench.data.feature_cache import encode_images
from iufbench.data.residency import home_for
from iufbench.data.resident import FrozenInputs
from iufbench.device import choose_device
from iufbench.errors import InputError, RunError
from iufbench.evaluation import EvaluationResult, ObjectEvaluation, ObjectTest
from iufbench.files import read_json
from iufbench.models.backbone import BackboneSpec, FrozenBackbone
from iufbench.models.checkpoints import load_public_weights
from iufbench.models.weights import read_state_dict
from iufbench.plan import MAP_SIZE, Plan, image_counts
from iufbench.progress import Progress, TrainingBar
from iufbench.provenance import command_line, environment, file_hash, now, peak_memory_mb, source_file_hash
from iufbench.registry import room
from iufbench.resume import PER_EXPERIENCE, SECONDS, Start, other_recipe, starting_point
from iufbench.rundir import (
    INFO,
    claimed,
    record_baseline,
    record_experience,
    record_hashes,
    record_training,
    write_info,
)
from iufbench.sealing import untouched
from iufbench.seeding import Seeds, derive, seed_everything
from iufbench.selection import SELECTION, diagnose, watching
from iufbench.stopping import Stop
from iufbench.store import load_run
from iufbench.summary import summaries


@dataclass
class Parts:
    """What a plan becomes once weights and images are loaded."""

    streams: Any
    strategy: Any
    evaluation: ObjectEvaluation
    backbone: FrozenBackbone


@dataclass
class Work:
    """A run at work. ``info`` becomes ``run.json``; ``checkpoint_epochs`` as in ``execute``."""

    plan: Plan
    parts: Parts
    info: dict[str, Any]
    progress: Progress
    checkpoint_epochs: int | None
    start: Start = Start()
    stop: Stop = field(default_factory=Stop)


def set_threads(plan: Plan) -> None:
    """``--threads``, else one for the quick preset and torch's own choice for others.

    The quick preset's network is too small to gain from a second thread, loses much when cores are
    busy, and with one thread gives the same numbers whatever the number of cores.
    """
    threads = plan.request.threads or (1 if plan.preset == "quick" else None)
    if threads is not None:
        torch.set_num_threads(threads)


def is_complete(plan: Plan) -> bool:
    """Whether the plan's run directory already holds the finished run.

    Raises InputError when it holds a run on other data, finished or not, or one without the unseen
    objects that are asked for: nothing is overwritten or continued without ``--restart``.
    """
    if not (plan.path / INFO).is_file():
        return False
    try:
        info = read_json(plan.path / INFO)
    except RunError as error:
        raise RunError(f"{error}; --restart runs it anew") from error
    if info.get("dataset", {}).get("fingerprint") != plan.dataset.fingerprint():
        raise InputError(
            f"{plan.path} holds a run on other data (its file list or file sizes differ): "
            "use --restart to replace it or --results DIR to keep both"
        )
    if info.get("status") != "complete":
        return False
    if plan.request.eval_unseen and not info.get("request", {}).get("eval_unseen"):
        raise InputError(f"{plan.path} was run without --eval-unseen: use --restart to run it anew with it")
    if plan.request.diagnose_every is not None and not (plan.path / SELECTION).is_file():
        raise InputError(f"{plan.path} was run without --diagnose-selection: use --restart to run it with it")
    return True


def load_backbone(plan: Plan, device: torch.device) -> FrozenBackbone:
    """The plan's frozen backbone. Raises InputError for unknown names and missing or foreign weights."""
    card = plan.recipe.backbone
    spec = BackboneSpec(name=card.name, weights=card.weights, layers=card.layers, padding=card.padding)
    return FrozenBackbone(spec, device)


def frozen_inputs(plan: Plan, device: torch.device) -> FrozenInputs:
    """What the plan's learner is given of an image. Raises InputError as ``load_backbone``, and for a guide
    (the image as the learner sees it) that is larger than the image."""
    recipe = plan.recipe
    guide = plan.learner.guide_size(plan.options, recipe.image_size)
    if guide is not None and guide > recipe.image_size:
        raise InputError(
            f"the learner's image resolution {guide} is larger than image_size {recipe.image_size}"
        )
    precision = getattr(torch, recipe.backbone.precision)
    return FrozenInputs(load_backbone(plan, device), recipe.image_size, guide, precision)


def execute(
    plan: Plan, progress: Progress, restart: bool = False, checkpoint_epochs: int | None = None
) -> Path:
    """Train and evaluate a whole stream; returns the run directory.

    An unfinished run goes on from its last checkpoint, and ends with the same numbers as one that was never
    stopped; ``restart`` begins anew. Checkpoints inside an experience come every ``checkpoint_epochs``
    epochs, None: about once a minute. The directory appears only after weights, images and masks have been
    read without a fault, so that bad input leaves nothing behind. An interrupt or a failure is recorded in
    ``run.json``. Raises RunError when another process is at work in the directory, and when the device's
    memory is not enough.
    """
    device = choose_device(plan.request.device)
    started, clock = now(), time.perf_counter()
    other = other_recipe(plan)
    if other is not None:
        progress.say(other)
    try:
        parts = assemble(plan, device, progress)
        info = _info(plan, parts, device, started)
        with claimed(plan.path):
            _carry_out(Work(plan, parts, info, progress, checkpoint_epochs), restart, clock)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"not enough memory on {device}: {reason} (try a smaller --set base.batch_size, "
            "increment.batch_size or image_size)"
        ) from error
    return plan.path


def _carry_out(work: Work, restart: bool, clock: float) -> None:
    """Everything that writes into the run directory."""
    plan, parts, info = work.plan, work.parts, work.info
    info["seconds"] = {**dict.fromkeys(SECONDS, 0.0), "total": 0.0}
    info["costs"] = {**_parameters(parts.strategy), **{name: [] for name in PER_EXPERIENCE}}
    work.start = starting_point(plan, parts.strategy, info, restart, work.progress)
    seconds = info["seconds"]
    seconds["features"] += time.perf_counter() - clock
    _write(plan, info, "running")
    try:
        with work.stop:
            _loop(work)
    except KeyboardInterrupt:
        _write(plan, info, "interrupted")
        raise
    except Exception as error:
        info["error"] = f"{type(error).__name__}: {error}"
        with suppress(RunError):  # a full disk: what filled it is said, not that this could not be written
            _write(plan, info, "failed")
        raise
    images = sum(info["costs"]["trained_images"])
    info["costs"]["train_images_per_s"] = images / seconds["train"] if seconds["train"] else None
    info["costs"]["peak_memory_mb"] = peak_memory_mb()
    device = parts.strategy.device
    if device.type == "cuda":
        info["costs"]["peak_device_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    seconds["total"] += time.perf_counter() - clock
    info["finished"] = now()
    info["summary"] = summaries(load_run(plan.path))
    info["records_sha256"] = record_hashes(plan.path)
    _write(plan, info, "complete")


def assemble(plan: Plan, device: torch.device, progress: Progress) -> Parts:
    """Load weights, decode and encode every image once, read the masks, build the strategy."""
    set_threads(plan)
    keep_freed_memory()
    recipe = plan.recipe
    inputs = frozen_inputs(plan, device)
    backbone = inputs.backbone
    counts = image_counts(plan)
    total = sum(sum(c.values()) for c in counts.values())
    inputs.home = home_for(total * inputs.image_bytes, device, cache_folder())
    if inputs.home.kind == "mapped":
        progress.say(f"the inputs do not fit into memory: they are mapped from a file in {cache_folder()}")
    if plan.request.cache:
        inputs.use_cache(cache_folder(), plan.dataset, progress)
    streams = room("benchmarks.streams")
    with progress.bar("reading images", total) as bar:
        built = streams.build_streams(
            plan.dataset,
            plan.protocol,
            inputs,
            joint=recipe.stream == "joint",
            advance=bar.advance,
            object_id_at_test=plan.learner.uses.object_id_at_test,
        )
    names, root, masks = plan.protocol.objects, plan.dataset.root, plan.dataset.has_masks
    tests = [ObjectTest.of(n, s, root, MAP_SIZE, masks) for n, s in zip(names, built.tests)]
    evaluation = ObjectEvaluation(tests)
    strategy = build_strategy(plan, backbone, device, evaluation.maps)
    if plan.request.init_from is not None:
        source = plan.request.init_from
        load_public_weights(strategy.model, read_state_dict(source), str(source))
    return Parts(built, strategy, evaluation, backbone)


def build_strategy(plan: Plan, backbone: FrozenBackbone, device: torch.device, *metrics: Any) -> Any:
    """The plan's strategy with a freshly initialised network, before any training.

    ``metrics``: Avalanche metric plugins that watch it.
    """
    size = plan.recipe.image_size
    seeds = Seeds.of(plan.request.seed)
    context = Context(
        recipe=plan.recipe,
        options=plan.options,
        channels=backbone.channels,
        feature_size=(size // backbone.stride, size // backbone.stride),
        map_size=MAP_SIZE,
        device=device,
        seeds=seeds,
        pixel_mean=tuple(backbone.mean),
        pixel_std=tuple(backbone.std),
        precision=plan.request.precision,
        compile=plan.request.compile,
        encode=partial(encode_images, backbone, getattr(torch, plan.recipe.backbone.precision)),
    )
    seed_everything(seeds.initialisation)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")  # run directories are the log
        evaluator = EvaluationPlugin(*metrics, collect_all=False)  # what it collects grows without end
    return plan.learner(context=context, evaluator=evaluator)


def parameter_counts(plan: Plan) -> dict[str, int]:
    """Parameters of the network that the plan would train; needs no weights (they do not change counts)."""
    card = plan.recipe.backbone
    device = torch.device("cpu")
    backbone = FrozenBackbone(BackboneSpec(name=card.name, weights="random", layers=card.layers), device)
    return _parameters(build_strategy(plan, backbone, device))


def _loop(work: Work) -> None:
    """Experiences from the start on: train, checkpoint, evaluate, record."""
    plan, parts, progress, start, stop = work.plan, work.parts, work.progress, work.start, work.stop
    objects_seen, steps, all_objects = 0, len(plan.experiences), range(len(plan.protocol.objects))
    if plan.request.eval_unseen and plan.learner.uses.gradients and start.is_beginning:
        rows = evaluate_objects(parts, 0, 0, all_objects, progress, "before training", stop)
        record_baseline(plan.path, rows.metrics)
    for number, names in enumerate(plan.experiences):
        objects_seen += len(names)
        label = f"experience {number + 1}/{steps}"
        if number >= start.trained:
            _train(work, number, label)
        if number >= start.evaluated:
            clock = time.perf_counter()
            shown = all_objects if plan.request.eval_unseen else all_objects[:objects_seen]
            rows = evaluate_objects(parts, number, objects_seen, shown, progress, label, stop)
            record_experience(plan.path, number, rows.metrics, rows.scores)
            if plan.request.diagnose_every is not None:
                diagnose(plan, parts, number, objects_seen, rows.metrics, progress)
            work.info["seconds"]["evaluate"] += time.perf_counter() - clock
            _write(plan, work.info, "running")
            record_evaluated(plan.path, number + 1)


def _train(work: Work, number: int, label: str) -> None:
    """Train experience ``number`` (from 0), or the rest of it, and store what it leaves."""
    plan, info, strategy = work.plan, work.info, work.parts.strategy
    experience = work.parts.streams.train[number]
    inside = work.start if number == work.start.trained else Start()
    seed_everything(derive(Seeds.of(plan.request.seed).training, number))
    strategy.training_log = []
    images, epochs = len(experience.resident), epochs_of(plan, number)
    clock = time.perf_counter()
    strategy.after_iteration = Saver(
        plan.path, number, strategy, work.stop, work.checkpoint_epochs, inside.seconds
    )
    label = f"{label}: training {_short(plan.experiences[number])}"
    with watching(strategy, plan.path, plan.request.diagnose_every, inside.epoch):
        train_experience(work.parts, number, epochs, work.progress, label, inside.epoch)
    info["seconds"]["train"] += inside.seconds + time.perf_counter() - clock
    costs = info["costs"]
    costs["trained_images"].append(images * epochs)
    costs["bytes_kept"].append(int(strategy.bytes_kept))
    costs["replayed_images"].append(int(strategy.replayed_images))
    costs.update(_parameters(strategy))
    log = [{"epoch": e, **row} for e, row in enumerate(strategy.training_log, start=1)]
    record_training(plan.path, number, log)
    # The checkpoint comes last: where there is one, all else of this training has been written.
    _write(plan, info, "running")
    save_checkpoint(plan.path, number, strategy)


def epochs_of(plan: Plan, number: int) -> int:
    """Epochs of experience ``number``. A learner without gradients goes over its images once, whatever
    schedule the card has."""
    training = plan.recipe.base if number == 0 else plan.recipe.increment
    return training.epochs_of(number) if plan.learner.uses.gradients else 1


def train_experience(
    parts: Parts, number: int, epochs: int, progress: Progress, label: str, done: int = 0
) -> None:
    """Train experience ``number`` (from 0) with a bar over the ``epochs`` of which ``done`` are behind."""
    strategy, experience = parts.strategy, parts.streams.train[number]
    with TrainingBar(progress, label, len(experience.resident) * (epochs - done), done) as bar:
        strategy.plugins.insert(0, bar)
        strategy.train(experience, eval_streams=[])
        strategy.plugins.remove(bar)


def evaluate_objects(
    parts: Parts,
    experience: int,
    seen: int,
    objects: Sequence[int],
    progress: Progress,
    label: str,
    stop: Stop | None = None,
) -> EvaluationResult:
    """The ``objects`` (by number) after ``experience``, when the first ``seen`` have been learnt.

    Ends with KeyboardInterrupt between two objects when ``stop`` is asked for.
    """
    parts.evaluation.start(experience, seen)
    with progress.bar(f"{label}: evaluating", len(objects), " objects") as bar, untouched(parts.strategy):
        for number in objects:
            if stop is not None:
                stop.check()
            parts.strategy.eval([parts.streams.test[number]])
            parts.evaluation.judge(number)
            bar.advance()
    return parts.evaluation.result()


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} objects"


def _parameters(strategy: Any) -> dict[str, int]:
    parameters = list(strategy.model.parameters())
    return {
        "parameters_total": sum(p.numel() for p in parameters),
        "parameters_trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def _write(plan: Plan, info: dict[str, Any], status: str) -> None:
    write_info(plan.path, {**info, "status": status})


def _info(plan: Plan, parts: Parts, device: torch.device, started: str) -> dict[str, Any]:
    dataset, card, protocol = plan.dataset, plan.dataset_card, plan.protocol
    uses = vars(plan.learner.uses)
    return {
        "iufbench": __version__,
        "id": plan.id,
        "dataset": {
            "name": dataset.name,
            "title": (card.title if card else dataset.name) + (" (synthetic)" if dataset.synthetic else ""),
            "synthetic": dataset.synthetic,
            "fingerprint": dataset.fingerprint(),
            "root": str(dataset.root.absolute()),
            "has_masks": dataset.has_masks,
            "licence": "synthetic, no licence" if dataset.synthetic else (card.licence if card else ""),
            "counts": image_counts(plan),
        },
        "protocol": {
            "id": protocol.id,
            "title": protocol.title,
            "order": protocol.order,
            "experiences": [list(e) for e in plan.experiences],
            "version": protocol.version,
        },
        "strategy": {
            "name": plan.card.name,
            "title": plan.recipe.title,
            "version": plan.recipe.version,
            "uses": dict(uses),
            "card_sha256": file_hash(plan.card.path),
            "learner_sha256": source_file_hash(plan.learner),
        },
        "recipe": plan.recipe.as_dict(),
        "recipe_hash": plan.recipe_hash,
        "preset": plan.preset,
        "seed": plan.request.seed,
        "seeds": {
            **Seeds.of(plan.request.seed).as_dict(),
            "synthetic_data": plan.request.data_seed if plan.request.synthetic else None,
        },
        "backbone": {
            "name": plan.recipe.backbone.name,
            "weights": plan.recipe.backbone.weights,
            "weights_sha256": parts.backbone.weights_sha256,
            "random": parts.backbone.random,
        },
        "image_size": plan.recipe.image_size,
        "map_size": MAP_SIZE,
        "environment": environment(str(device), torch.get_num_threads()),
        "request": plan.request.as_dict(),
        "command": command_line(),
        "started": started,
    }
