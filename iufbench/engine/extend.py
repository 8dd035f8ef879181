"""Adds objects to a finished run: one more experience from its last checkpoint, in a new run directory.

The new run is equivalent to one with the objects in its protocol from the start. Its first experiences are
copied, so old training images are not needed; old objects are evaluated if their test images are available.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from iufbench.cards.datasets import dataset_card
from iufbench.cards.protocols import Protocol, find_protocol, resolve_protocol
from iufbench.cards.request import Request
from iufbench.data.datasets import MIXED, open_requested, synthetic_root
from iufbench.data.samples import DataSet
from iufbench.data.survey import WIDE
from iufbench.engine.again import gate, recorded_decoding, request_of, require_recipe
from iufbench.engine.checkpoint import check_records, checkpoint_sha256, copy_checkpoint, trained_experiences
from iufbench.engine.plan import Plan, prepare
from iufbench.engine.recording import begun_record
from iufbench.reporting.record import INFO, Parent, write_record
from iufbench.reporting.rundir import CALIBRATION, METRICS, SCORES, TRAIN_LOG, claimed
from iufbench.reporting.store import Run, load_run
from iufbench.support.errors import InputError
from iufbench.support.files import LARGEST, open_file, write_bytes
from iufbench.support.progress import Progress


def extend(
    path: Path | str,
    objects: Sequence[str],
    progress: Progress,
    data_root: Path | None = None,
    results: Path | None = None,
    device: str | None = None,
    trust_code: bool = False,
) -> Run:
    """Train a finished run on further objects and evaluate every object with data.

    Repeating an interrupted call resumes it.

    Args:
        path: Directory of a complete run.
        objects: The new objects, one experience: as many as in each increment of the run.
        progress: Called with messages.
        data_root: Folder with the new objects and, to be evaluated again, the old ones; None: the location of
            the run's data.
        results: Results folder of the new run; None: that of the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; None: the run's own.
        trust_code: Import the run's learner even if it is not an installed one.

    Returns:
        The new run; ``record.parent`` is the old one.

    Raises:
        InputError: The run cannot be extended, an object is already known or has no data, or the data of old
            objects differ from those of the run. Nothing was written.
        RunError: The run is corrupted, or its card or weights have changed.
    """
    from iufbench.engine.runner import execute, is_complete  # Avalanche

    run = load_run(path)
    plan = plan_extended(run, objects, progress, data_root, results, device, trust_code)
    if is_complete(plan):
        progress.say(f"already complete: {plan.path}")
    else:
        begun = plan.path.exists()
        _adopt(run, plan)
        try:
            execute(plan, progress)
        except InputError:  # an image of the new object, before anything was trained on
            if not begun:
                shutil.rmtree(plan.path)
                with suppress(OSError):
                    os.removedirs(plan.path.parent)
            raise
    return load_run(plan.path)


def plan_extended(
    run: Run,
    objects: Sequence[str],
    progress: Progress,
    data_root: Path | None = None,
    results: Path | None = None,
    device: str | None = None,
    trust_code: bool = False,
) -> Plan:
    """The plan of a run with one more experience; arguments and errors as for :func:`extend`."""
    _require_extensible(run, objects)
    request = request_of(run)
    recorded = run.record.dataset.root
    if data_root is not None:
        request = replace(request, data_root=data_root, synthetic=False)
    elif request.data_root is None and not request.synthetic and recorded:
        request = replace(request, data_root=Path(recorded))
    request = replace(
        request,
        results=results or _results_of(run),
        device=device or run.record.environment.device or "auto",
        diagnose_every=None,
    )
    name, _ = find_protocol(request.protocol)
    root = request.data_root
    if request.synthetic:
        root = synthetic_root(name, request.data_seed, progress=False)
    dataset, missing = _data(run, request, name, objects, root, progress)
    request, protocol = _protocol(run, request, name, objects, dataset)
    last = len(run.experiences) - 1
    parent = Parent(run.id, last + 1, checkpoint_sha256(run.path, last), missing)
    plan = prepare(request, False, (protocol, dataset), gate(run, trust_code))
    wide = any(WIDE in note for note in run.record.dataset.notes)
    bits = recorded_decoding(run).bits if wide else None  # without 16-bit images it has none
    plan = replace(plan, parent=parent, bits=bits)
    require_recipe(run, plan.recipe, plan.recipe_hash)
    return plan


def _require_extensible(run: Run, objects: Sequence[str]) -> None:
    record = run.record
    if not run.complete:
        raise InputError(f"{run.path}: the run is {record.status}, not complete; finish it first")
    if not objects:
        raise InputError("--object: name at least one object")
    for name in objects:
        if name in run.objects:
            raise InputError(f"--object: {run.id} has already learnt '{name}'")
        if list(objects).count(name) > 1:
            raise InputError(f"--object names '{name}' twice")
    why = None
    if record.protocol.stream is not None:
        why = "its protocol has a stream (@...)"
    elif record.recipe.get("stream") == "joint":
        why = "it is trained on all objects at once"
    elif record.request.get("eval_unseen"):
        why = "it evaluated unseen objects (--eval-unseen), and has no values of the new one"
    elif record.request.get("lists"):
        why = "its images come from lists"
    elif record.dataset.name.startswith(MIXED):
        why = "it spans several data sets"
    if why is not None:
        raise InputError(f"{run.id} cannot be extended: {why}; run a protocol with the new object instead")
    sizes = {len(group) for group in run.experiences[1:]}
    if sizes and sizes != {len(objects)}:
        raise InputError(
            f"{run.id} adds {' or '.join(map(str, sorted(sizes)))} objects per experience: "
            f"--object names {len(objects)}"
        )


def _results_of(run: Run) -> Path:
    place = run.path.resolve()
    if place.as_posix().endswith(f"/runs/{run.id}"):
        return place.parents[len(Path(run.id).parts)]
    raise InputError(f"{run.path} is not in a results folder: give --results DIR for the new run")


def _data(
    run: Run, request: Request, name: str, objects: Sequence[str], root: Path | None, progress: Progress
) -> tuple[DataSet, list[str]]:
    """The data of new and old objects, and the old objects that are not there.

    Raises InputError for a new object that is not there, and for old ones that are not those of the run.
    """
    there, missing = [], []
    open_requested(request, name, objects, root)  # the new objects must be readable, whatever the others are
    for old in run.objects:
        try:
            open_requested(request, name, [old], root)
            there.append(old)
        except InputError as error:
            missing.append(old)
            progress.warn(f"'{old}' will not be evaluated: {error}")
    dataset = open_requested(request, name, [*there, *objects], root)
    if dataset.name != run.record.dataset.name:
        raise InputError(
            f"{dataset.root} is {dataset.name}, the run is on {run.record.dataset.name}: they do not mix"
        )
    before = open_requested(request, name, there, root) if there else dataset
    same = missing or before.fingerprint() == run.record.dataset.fingerprint
    counts = {o: sum(s.object == o for s in before.select("test")) for o in there}
    changed = [o for o in there if counts[o] != run.record.dataset.counts.get(o, {}).get("test", counts[o])]
    if changed or not same:
        which = f" of '{changed[0]}'" if changed else ""
        raise InputError(
            f"the images{which} below {dataset.root} are not those that {run.id} was trained and tested on: "
            "restore them, or remove them to leave them out"
        )
    return dataset, missing


def _protocol(
    run: Run, request: Request, name: str, objects: Sequence[str], dataset: DataSet
) -> tuple[Request, Protocol]:
    """The protocol with one more experience, and the request that asks for it."""
    groups = (*map(tuple, run.experiences), tuple(objects))
    everything = [o for group in groups for o in group]
    count = len(groups) - 1
    core = f"{name}_{len(groups[0])}_{len(objects)}" + (f"x{count}" if count > 1 else "")
    card = dataset_card(name, request.card)
    usual = card.objects if card else tuple(sorted(everything))
    request = replace(request, protocol=core, order=None, order_seed=None)
    protocol = resolve_protocol(core, usual)
    if protocol.experiences != groups:
        request = replace(request, order=tuple(everything))
        protocol = resolve_protocol(core, everything, everything)
    return request, protocol


def _adopt(run: Run, plan: Plan) -> None:
    """Begin the plan's run with all experiences of ``run``, unless it has begun.

    Written as the new run itself would have written them, so that it is resumed after its parent's last
    experience.
    """
    count = len(run.experiences)
    if (plan.path / INFO).is_file() and trained_experiences(plan.path) >= count:
        return
    check_records(run.path, complete=count)
    record = run.record
    with claimed(plan.path):
        (plan.path / INFO).unlink(missing_ok=True)
        for name in (METRICS, SCORES, TRAIN_LOG, *((CALIBRATION,) if plan.rule else ())):
            with open_file(run.path / name) as file:
                write_bytes(plan.path / name, file.read(LARGEST))
        for number in range(count):
            copy_checkpoint(run.path, plan.path, number)
        costs = replace(record.costs, train_images_per_s=None, peak_memory_mb=None)
        # Last: where run.json is, all else of the parent is there.
        write_record(plan.path, begun_record(plan, record, costs, parent=plan.parent))
