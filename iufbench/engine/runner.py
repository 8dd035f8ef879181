"""The main loop: for each experience train, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from iufbench.cards.request import command
from iufbench.data.undefined import undefined_lines
from iufbench.engine.assembly import Parts, assemble, count_parameters
from iufbench.engine.checkpoint import Saver, check_records, record_evaluated, save_checkpoint
from iufbench.engine.evaluate import evaluate_objects
from iufbench.engine.gpu_memory import check_gpu_memory
from iufbench.engine.kernels import kernel_share
from iufbench.engine.logs import logging_to
from iufbench.engine.plan import MAP_SIZE, Plan, image_counts
from iufbench.engine.recording import dataset_record, protocol_record
from iufbench.engine.resume import (
    Start,
    other_order,
    other_orientation,
    other_recipe,
    recall_thresholds,
    starting_point,
    what_differs,
)
from iufbench.engine.selection import EpochStates, diagnose
from iufbench.engine.stopping import terminated_as_interrupted
from iufbench.reporting.record import (
    COMPLETE,
    FAILED,
    INFO,
    INTERRUPTED,
    RUNNING,
    BackboneRecord,
    Costs,
    RunRecord,
    Seconds,
    Status,
    StrategyRecord,
    read_record,
    write_record,
)
from iufbench.reporting.rundir import (
    METRICS,
    SCORES,
    SELECTION,
    claimed,
    record_baseline,
    record_calibration,
    record_experience,
    record_hashes,
    record_training,
)
from iufbench.reporting.store import load_run
from iufbench.reporting.thresholds import threshold_record
from iufbench.support.device import choose_device
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress, TrainingBar
from iufbench.support.provenance import (
    environment,
    file_hash,
    now,
    peak_memory_mb,
    source_file_hash,
)
from iufbench.support.seeding import Seeds, derive, seed_everything
from iufbench.support.version import SCORES_VERSION, __version__


@dataclass
class Work:
    """A run in progress. ``info`` becomes ``run.json``; ``checkpoint_epochs`` as in ``execute``."""

    plan: Plan
    parts: Parts
    info: RunRecord
    progress: Progress
    checkpoint_epochs: int | None
    loggers: Sequence[str] = ()
    start: Start = Start()


def is_complete(plan: Plan) -> bool:
    """Whether the plan's run directory already contains the finished run.

    Nothing is overwritten or continued without ``--restart``.

    Raises:
        InputError: The directory has a run on different data, or one without the requested evaluation of
            unseen objects or diagnosis.
        RunError: The results of a finished run have changed since it ended.
    """
    if not (plan.path / INFO).is_file():
        return False
    try:
        record = read_record(plan.path)
    except RunError as error:
        raise RunError(f"{error}; --restart repeats it") from error
    if record.id != plan.id:
        raise RunError(
            f"{plan.path} holds the run {record.id}: was it renamed or copied? move it back to its own "
            "folder, or --restart replaces it"
        )
    if record.dataset.fingerprint != plan.dataset.fingerprint() or other_orientation(plan, record):
        raise InputError(
            f"{plan.path} holds a run on different data ({what_differs(plan, record)}): "
            "use --restart to replace it or --results DIR to keep both"
        )
    if not record.complete:
        return False
    _check_finished(plan, record)
    if plan.request.eval_unseen and not record.request.get("eval_unseen"):
        raise InputError(f"{plan.path} was run without --eval-unseen: --restart repeats it with the option")
    if plan.request.diagnose_every is not None and not (plan.path / SELECTION).is_file():
        raise InputError(f"{plan.path} was run without --diagnose-selection: --restart repeats it with it")
    return True


def _check_finished(plan: Plan, record: RunRecord) -> None:
    """Raise RunError if a result file was changed after the run ended, or lacks an experience."""
    found = record_hashes(plan.path)
    for name in dict.fromkeys((METRICS, SCORES, *record.records_sha256)):
        told = record.records_sha256.get(name)
        if name not in found or (told is not None and found[name] != told):
            fault = "was changed after the run ended" if name in found else "is missing"
            raise RunError(f"{plan.path / name} {fault}: restore the file, or --restart repeats the stream")
    try:
        load_run(plan.path)
    except RunError as error:
        raise RunError(f"{error}; --restart repeats the stream") from error


def execute(
    plan: Plan,
    progress: Progress,
    restart: bool = False,
    checkpoint_epochs: int | None = None,
    loggers: Sequence[str] = (),
) -> Path:
    """Train and evaluate a whole stream.

    An unfinished run is resumed from its last checkpoint, and ends with the same numbers as an uninterrupted
    one. The directory is created only after weights, images and masks have been read, so that invalid input
    leaves nothing behind. An interrupt or a failure is recorded in ``run.json``.

    Args:
        plan: What to run.
        progress: Called with messages.
        restart: Replace existing results.
        checkpoint_epochs: Epochs between checkpoints inside an experience; None: at the end of an epoch,
            about once a minute.
        loggers: Names of Avalanche loggers (``evaluation.loggers``) that also receive all values.

    Returns:
        The run directory.

    Raises:
        RunError: Another process is using the directory, or device memory is insufficient.
    """
    device = choose_device(plan.request.device)
    started, clock = now(), time.perf_counter()
    order = other_order(plan)
    if order is not None:
        progress.warn(order)
    other = other_recipe(plan)
    if other is not None:
        progress.say(other)
    tight = check_gpu_memory(plan, device)
    try:
        parts = assemble(plan, device, progress)
        if tight is not None:
            progress.say(f"note: {tight}")
            parts.strategy.model.save_memory()
        for note in parts.dataset.notes:
            progress.say(f"note: {note}")
        info = _info(plan, parts, device, started)
        for warning in info.warnings:
            progress.warn(warning)
        with claimed(plan.path):
            _carry_out(Work(plan, parts, info, progress, checkpoint_epochs, loggers), restart, clock)
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
    info.seconds, info.costs = Seconds(0.0, 0.0, 0.0, 0.0), Costs()
    vars(info.costs).update(count_parameters(parts.strategy))
    work.start = starting_point(plan, parts.strategy, info, restart, work.progress)
    seconds, costs = info.seconds, info.costs
    seconds.features += time.perf_counter() - clock
    _write(plan, info, RUNNING)
    try:
        with terminated_as_interrupted(), logging_to(work.loggers, plan, parts, work.start):
            _loop(work)
        check_records(plan.path, complete=len(plan.experiences))
    except KeyboardInterrupt:
        _write(plan, info, INTERRUPTED)
        raise
    except Exception as error:
        info.error = f"{type(error).__name__}: {error}"
        with suppress(RunError):  # a full disk: report the original error instead of this one
            _write(plan, info, FAILED)
        raise
    timed = costs.train_seconds  # also of experiences copied from another run
    images = sum(costs.trained_images[-len(timed) :]) if timed else 0
    costs.train_images_per_s = images / sum(timed) if sum(timed) else None
    costs.peak_memory_mb = peak_memory_mb()
    device = parts.strategy.device
    if device.type == "cuda":
        costs.peak_device_memory_mb = torch.cuda.max_memory_allocated(device) / 2**20
    seconds.total += time.perf_counter() - clock
    info.finished = now()
    info.summary = load_run(plan.path).summaries()
    if plan.request.threshold is not None:
        info.thresholds = threshold_record(plan.path, plan.request.threshold, plan.request.calibration or 0)
    info.records_sha256 = record_hashes(plan.path)
    _write(plan, info, COMPLETE)


def _loop(work: Work) -> None:
    """Process the remaining experiences: train, checkpoint, evaluate, record."""
    plan, parts, progress, start = work.plan, work.parts, work.progress, work.start
    steps, all_objects = len(plan.experiences), range(len(plan.protocol.objects))
    recall_thresholds(plan.path, parts, start.evaluated)
    if plan.request.eval_unseen and plan.learner.uses.gradients and start.is_beginning:
        rows = evaluate_objects(parts, 0, 0, all_objects, progress, "before training")
        record_baseline(plan.path, rows.metrics)
        record_evaluated(plan.path, 0)
    for number in range(steps):
        objects_seen = plan.seen(number)
        label = f"experience {number + 1}/{steps}"
        if number >= start.trained:
            _train(work, number, label)
        if number >= start.evaluated:
            clock = time.perf_counter()
            due = all_objects if plan.request.eval_unseen else all_objects[:objects_seen]
            shown = [k for k in due if parts.streams.tests[k]]  # an extended run may lack images of old ones
            rows = evaluate_objects(parts, number, objects_seen, shown, progress, label)
            if plan.rule is not None:
                record_calibration(plan.path, number, rows.calibration)
            record_experience(plan.path, number, rows.metrics, rows.scores)
            if plan.request.diagnose_every is not None:
                diagnose(plan, parts, number, objects_seen, rows.metrics, progress)
            work.info.seconds.evaluate += time.perf_counter() - clock
            _write(plan, work.info, RUNNING)
            record_evaluated(plan.path, number + 1)


def _train(work: Work, number: int, label: str) -> None:
    """Train experience ``number`` (from 0), or the rest of it, and store its state and log."""
    plan, info, strategy = work.plan, work.info, work.parts.strategy
    experience = work.parts.streams.train[number]
    start = work.start if number == work.start.trained else Start()
    work.start = replace(work.start, inside=None)  # frees its tensors before the training
    seed_everything(derive(Seeds.of(plan.request.seed).training, number))
    strategy.training_log = []
    images, epochs = len(experience.resident), plan.epochs(number)
    clock = time.perf_counter()
    save = Saver(plan.path, number, strategy, work.checkpoint_epochs, start.seconds)
    aside = EpochStates(plan.path, plan.request.diagnose_every, start.epochs)
    label = f"{label}: training {_short(plan.experiences[number])}"
    training = train_experience(work.parts, number, epochs, work.progress, label, start.inside, start.epochs)
    iterations = epochs * -(-images // plan.recipe.training(number).batch_size)
    with kernel_share(strategy, iterations if info.costs.kernel_share is None else 0) as kernels:
        for _ in work.parts.evaluation.watched(training, strategy, experience, number):
            aside.after_epoch(strategy)
            save()
    if strategy.step_note is not None:
        work.progress.say(f"note: {strategy.step_note}")
    seconds = start.seconds + time.perf_counter() - clock
    info.seconds.train += seconds
    costs = info.costs
    costs.kernel_share = kernels.share if costs.kernel_share is None else costs.kernel_share
    costs.train_seconds.append(round(seconds, 3))
    costs.trained_images.append(images * strategy.train_epochs)
    costs.bytes_kept.append(int(strategy.bytes_kept))
    costs.replayed_images.append(int(strategy.replayed_images))
    vars(costs).update(count_parameters(strategy))
    log = [{"epoch": e, **row} for e, row in enumerate(strategy.training_log, start=1)]
    record_training(plan.path, number, log)
    # The checkpoint is written last: if it exists, everything else of this training has been written.
    _write(plan, info, RUNNING)
    save_checkpoint(plan.path, number, strategy)


def train_experience(
    parts: Parts,
    number: int,
    epochs: int,
    progress: Progress,
    label: str,
    inside: dict[str, Any] | None = None,
    done: int = 0,
) -> Iterator[None]:
    """Train an experience with a progress bar over its epochs; yields after each epoch.

    Args:
        parts: The parts of the run.
        number: Index of the experience, from 0.
        epochs: Its epochs.
        progress: Shows the bar.
        label: Label of the bar.
        inside: The state after ``done`` epochs from which training is resumed; None for a new training.
        done: Completed epochs.
    """
    strategy, experience = parts.strategy, parts.streams.train[number]
    with TrainingBar(progress, label, len(experience.resident) * (epochs - done), done) as bar:
        strategy.plugins.insert(0, bar)
        yield from strategy.train_by_epoch(experience, inside)
        strategy.plugins.remove(bar)


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} objects"


def _write(plan: Plan, info: RunRecord, status: Status) -> None:
    info.status = status
    write_record(plan.path, info)


def _warnings(plan: Plan, parts: Parts) -> list[str]:
    """Likely problems of the data, for readers of the results."""
    card, dataset = plan.dataset_card, parts.dataset
    lines = undefined_lines(dataset, plan.protocol.objects)
    lines += [] if plan.request.accept_masks else parts.mask_doubts
    return lines if card is None or dataset.synthetic else lines + card.differing(dataset.counts())


def _info(plan: Plan, parts: Parts, device: torch.device, started: str) -> RunRecord:
    dataset, protocol = parts.dataset, plan.protocol
    data_seed = plan.request.data_seed if plan.request.synthetic else None
    return RunRecord(
        iufbench=__version__,
        scores_version=SCORES_VERSION,
        id=plan.id,
        status=RUNNING,
        dataset=dataset_record(dataset, plan.dataset_card, protocol, image_counts(plan)),
        warnings=_warnings(plan, parts),
        protocol=protocol_record(protocol, plan.experiences),
        strategy=StrategyRecord(
            name=plan.card.name,
            title=plan.recipe.title,
            family=plan.recipe.family,
            version=plan.recipe.version,
            uses=dict(vars(plan.learner.uses)),
            card_sha256=file_hash(plan.card.path),
            learner_sha256=source_file_hash(plan.learner),
        ),
        recipe=plan.recipe.as_dict(),
        recipe_hash=plan.recipe_hash,
        preset=plan.preset,
        seed=plan.request.seed,
        seeds={**Seeds.of(plan.request.seed).as_dict(), "synthetic_data": data_seed},
        backbone=BackboneRecord(
            name=plan.recipe.backbone.name,
            weights=plan.recipe.backbone.weights,
            weights_sha256=parts.backbone.weights_sha256,
            random=parts.backbone.random,
        ),
        image_size=plan.recipe.image_size,
        map_size=MAP_SIZE,
        environment=environment(str(device), torch.get_num_threads()),
        request=plan.request.as_dict(),
        command=command(plan.request),
        started=started,
        parent=plan.parent,
    )
