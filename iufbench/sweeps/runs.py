"""Turns requests into checked runs with their paths, states and sharing keys."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iufbench.cards.registry import announce
from iufbench.cards.request import Request, arguments
from iufbench.cards.strategies import Resources
from iufbench.engine.plan import Plan, prepare
from iufbench.reporting.record import INFO, read_record
from iufbench.support.errors import InputError, RunError
from iufbench.sweeps.grid import report_all

MISSING, UNFINISHED, FAILED, COMPLETE = "missing", "unfinished", "failed", "complete"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, small enough to hold ten thousand.

    Attributes:
        number: Position in the grid.
        id: ``<dataset>/<protocol>/<strategy>/<recipe hash>/seed<k>``.
        path: Its run directory.
        request: What ``iufbench run`` would be called with.
        state: ``missing``, ``unfinished``, ``failed`` or ``complete``.
        kind: What determines its duration: data set, protocol without the order, strategy, recipe.
        preset: Name of the preset.
        trained_images: Images shown in training, summed over epochs.
        experiences: Number of experiences.
        base: Equal in runs whose base experience is bit-identical; empty if it cannot be shared.
        data: Fingerprint of the data set.
        inputs: Equal in runs that read the same features; empty without caches.
        resources: Resources requested from a cluster.
    """

    number: int
    id: str
    path: Path
    request: Request
    state: str = MISSING
    kind: tuple[str, str, str, str] = ("", "", "", "")
    preset: str = ""
    trained_images: int = 0
    experiences: int = 1
    base: str = ""
    data: str = ""
    inputs: str = ""
    resources: Resources = Resources()

    @property
    def label(self) -> str:
        """The id with a shortened recipe hash."""
        dataset, protocol, strategy, recipe, seed = self.id.split("/")
        return f"{dataset}/{protocol}/{strategy}/{recipe[:4]}/{seed}" if protocol else self.id


def plan_runs(requests: Sequence[Request], cores: int) -> list[PlannedRun]:
    """Check all requests as ``iufbench run`` would; only synthetic images are written.

    Args:
        requests: The runs of a grid. A plan is made once for all seeds.
        cores: Threads of a run that does not set them and does not use the quick preset; recorded in its
            request.

    Returns:
        The runs, in the same order.

    Raises:
        InputError: Requests are invalid, or two give the same run; the message lists all errors.
    """
    plans: dict[str, Plan | None] = {}
    mistakes: list[str] = []
    runs: list[PlannedRun] = []
    owners: dict[Path, Request] = {}
    for request in requests:
        key = repr(dataclasses.replace(request, seed=0))
        if key not in plans:
            plans[key] = _prepared(request, mistakes)
        prepared = plans[key]
        if prepared is None:
            continue
        threads = request.threads or (None if prepared.preset == "quick" else cores)
        request = dataclasses.replace(request, threads=threads, precision=prepared.request.precision)
        plan = dataclasses.replace(prepared, request=request)
        if plan.path in owners:
            mistakes.append(
                f"two entries give the same run {plan.id}: {_differences(owners[plan.path], request)}"
            )
            continue
        owners[plan.path] = request
        try:
            state = state_of(plan)
        except InputError as error:
            mistakes.append(str(error))
            continue
        runs.append(
            PlannedRun(
                number=len(runs),
                id=plan.id,
                path=plan.path,
                request=request,
                state=state,
                kind=(
                    plan.dataset.name,
                    plan.protocol.id.partition("+")[0],
                    plan.card.name,
                    plan.recipe_hash,
                ),
                preset=plan.preset,
                trained_images=trained_images(plan),
                experiences=len(plan.experiences),
                base=base_key(plan),
                data=plan.dataset.fingerprint(),
                inputs=inputs_key(plan),
                resources=plan.recipe.resources,
            )
        )
    report_all(mistakes)
    return runs


def _prepared(request: Request, mistakes: list[str]) -> Plan | None:
    try:
        return prepare(request, progress=False, before_code=announce)
    except InputError as error:
        mistakes.append(str(error))
        return None


def _differences(one: Request, other: Request) -> str:
    """Two requests as command line options."""
    mine, yours = shlex.join(arguments(one)[1:]), shlex.join(arguments(other)[1:])
    return mine if mine == yours else f"{mine} | {yours}"


def state_of(plan: Plan) -> str:
    """The state of a run from its directory. Raises InputError if it holds a run on other data."""
    if not (plan.path / INFO).is_file():
        return MISSING
    from iufbench.engine.runner import is_complete

    try:
        if is_complete(plan):
            return COMPLETE
        failed = read_record(plan.path).status == FAILED
    except RunError as error:
        raise InputError(str(error)) from error
    return FAILED if failed else UNFINISHED


def trained_images(plan: Plan) -> int:
    """Images shown in training, summed over epochs (one without gradients) and experiences."""
    return sum(plan.epochs(number) * images for number, images in enumerate(plan.train_counts))


def base_key(plan: Plan) -> str:
    """A key that is equal in two runs only if everything their base experience may depend on is equal.

    The whole recipe counts, including the increments' schedule and every option of the learner, because
    computations at the end of the base experience may depend on them (EWC estimates the Fisher information
    there). What remains are protocols of one strategy with the same base objects.
    """
    if len(plan.experiences) < 2 or plan.request.eval_unseen:
        return ""
    request = plan.request
    parts = (
        plan.card.name,
        plan.recipe_hash,
        plan.dataset.name,
        plan.dataset.fingerprint(),
        plan.experiences[0],
        plan.protocol.id if plan.protocol.stream else "",
        request.seed,
        request.device,
        request.threads,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def inputs_key(plan: Plan) -> str:
    """A key that is equal in two runs that read the same images and features; empty without caches."""
    if not plan.request.cache:
        return ""
    recipe = plan.recipe
    size = plan.learner.guide_size(plan.options, plan.recipe.image_size)
    parts = (plan.dataset.fingerprint(), recipe.image_size, dataclasses.asdict(recipe.backbone), size)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
