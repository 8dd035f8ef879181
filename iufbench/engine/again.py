"""Plans of finished runs, rebuilt from their run.json: with their data, or without any data."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

from iufbench.cards.protocols import Protocol, find_protocol
from iufbench.cards.registry import shipped_cards
from iufbench.cards.request import MAX_THREADS, Request
from iufbench.cards.strategies import Recipe, load_strategy
from iufbench.cards.streams import Stream
from iufbench.data.decoding import Decoding
from iufbench.data.samples import DataSet
from iufbench.engine.plan import BeforeCode, Plan, identity_of, prepare, resolve_recipe
from iufbench.engine.resume import other_orientation
from iufbench.reporting.record import INFO, RunRecord
from iufbench.reporting.store import Run
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import build
from iufbench.support.nested import differing, flat


def plan_again(run: Run, data_root: Path | None = None, trust_code: bool = False, **changes: Any) -> Plan:
    """Rebuild the plan of a run, with its number of threads.

    ``data_root``: current location of its data, if it has changed; ``trust_code``: import a learner that is
    not installed, which the run directory of someone else can name; ``changes``: overrides of its request.
    Raises InputError for such a learner otherwise, RunError, naming the difference, if the data or the card
    have changed.
    """
    request = request_of(run)
    recorded = run.record.dataset.root
    if data_root is not None:
        changes |= {"data_root": data_root, "synthetic": False}
    elif request.data_root is None and not request.synthetic and recorded and Path(recorded).is_dir():
        changes["data_root"] = Path(recorded)
    name, _ = find_protocol(request.protocol)
    found = None
    if name not in shipped_cards("dataset") and request.order is None:  # objects may have been added since
        found = _protocol(run.record, name, run.path), None
    plan = prepare(replace(request, **changes), False, found, before_code=gate(run, trust_code))
    if other_orientation(plan, run.record):
        raise RunError(
            f"{run.path} was run with EXIF orientations {run.record.dataset.orientation}, which the card of "
            f"the data set has changed"
        )
    if plan.dataset.fingerprint() != run.record.dataset.fingerprint:
        raise RunError(f"{run.path} was run on different data than {plan.dataset.root} contains now")
    require_recipe(run, plan.recipe, plan.recipe_hash)
    return replace(plan, bits=recorded_decoding(run).bits)


def recorded_decoding(run: Run) -> Decoding:
    """How a run has decoded images. Raises InputError for invalid values."""
    known = {field.name for field in dataclasses.fields(Decoding)}
    given = {k: v for k, v in run.record.dataset.decoding.items() if k in known}
    return build(Decoding, given, str(run.path / INFO), "dataset.decoding")


def plan_without_data(run: Run, device: str = "auto", trust_code: bool = False) -> Plan:
    """Rebuild the plan of a run from its record alone, to load its checkpoints without its data.

    The plan's data set has the run's objects and decoding but no samples; ``trust_code`` as for
    ``plan_again``.

    Raises:
        InputError: The card or the weights file is missing, or the learner is not an installed one.
        RunError: The card has changed since the run; the message names what has changed.
    """
    record = run.record
    request = replace(request_of(run), device=device)
    name, _ = find_protocol(request.protocol)
    protocol = _protocol(record, name, run.path)
    card = load_strategy(request.strategy)
    preset = record.preset or "paper"
    recipe, learner, options = resolve_recipe(request, card, name, protocol, preset, gate(run, trust_code))
    recipe_hash = identity_of(recipe, request)
    require_recipe(run, recipe, recipe_hash)
    dataset = DataSet(
        name=record.dataset.name,
        root=Path(record.dataset.root or "."),
        objects=protocol.products,
        samples=(),
        synthetic=record.dataset.synthetic,
        decoding=recorded_decoding(run),
    )
    return Plan(
        request=request,
        protocol=protocol,
        dataset=dataset,
        dataset_card=None,
        card=card,
        recipe=recipe,
        recipe_hash=recipe_hash,
        preset=preset,
        learner=learner,
        options=options,
    )


def request_of(run: Run) -> Request:
    """The request of a run, with the number of threads that it used."""
    if run.record.external:
        raise InputError(f"{run.path} is an external run: it has scores and no strategy to run again")
    if not run.record.request:
        raise RunError(f"{run.path}: run.json does not contain its request; run it again")
    request = Request.from_dict(run.record.request, run.path / INFO)
    threads = run.record.environment.threads
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise RunError(f"{run.path / INFO}: environment.threads is {threads}, not 1 to {MAX_THREADS}")
    return replace(request, threads=threads or request.threads)


def gate(run: Run, trust_code: bool) -> BeforeCode:
    """Rejects code of a run unless it is trusted."""

    def before_code(text: str) -> None:
        if not trust_code:
            raise InputError(f"{run.path}: {text}: this executes their code; read it, then add --trust-code")

    return before_code


def require_weights(run: Run, found: str) -> None:
    """Raise RunError unless the backbone weights have the SHA-256 recorded in the run."""
    weights = run.record.backbone.weights_sha256
    if weights != found:
        raise RunError(
            f"{run.path} was run with backbone weights {weights}, which differ from those found now"
        )


def _protocol(record: RunRecord, dataset: str, path: Path) -> Protocol:
    stream = None
    if record.protocol.stream is not None:
        try:
            given = {key: value for key, value in record.protocol.stream.items() if value not in ([], ())}
            stream = build(Stream, given, f"{path / INFO}: protocol.stream")
        except InputError as error:
            raise RunError(str(error)) from error
    groups = tuple(tuple(group) for group in record.protocol.experiences)
    order = record.protocol.order or "dataset"
    return Protocol(
        record.protocol.id, dataset, groups, record.protocol.title or "", order=order, stream=stream
    )


def require_recipe(run: Run, recipe: Recipe, recipe_hash: str) -> None:
    """Raise RunError, naming the keys, if the recipe differs from that of the run."""
    if recipe_hash == run.record.recipe_hash:
        return
    changed = _changed(run.record.recipe, recipe.as_dict())
    raise RunError(
        f"{run.path} was run with a different recipe than that of its card now: "
        f"{changed or 'other weights'}; restore the card it was made with"
    )


def _changed(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first few keys that differ, with both values."""
    words = ("title", "description", "provenance")
    cards = [flat({k: v for k, v in card.items() if k not in words}) for card in (then, now)]
    changed = list(differing(*cards).items())[:5]
    return ", ".join(f"{key} was {one!r} and is {other!r}" for key, (one, other) in changed)
