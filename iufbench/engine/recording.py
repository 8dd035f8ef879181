"""Builds the record of a run for ``run.json``: its data, protocol and start. Without torch."""

from __future__ import annotations

from collections.abc import Sequence

from iufbench.cards.datasets import DataSetCard
from iufbench.cards.protocols import Protocol
from iufbench.data.samples import DataSet
from iufbench.engine.plan import Plan
from iufbench.reporting.record import (
    INTERRUPTED,
    Costs,
    DatasetRecord,
    Parent,
    ProtocolRecord,
    RunRecord,
    Seconds,
    SharedBase,
)


def dataset_record(
    dataset: DataSet, card: DataSetCard | None, protocol: Protocol, counts: dict[str, dict[str, int]]
) -> DatasetRecord:
    """The data of a run; ``counts``: the images used per object (``train``, ``test``)."""
    title = (card.title if card else dataset.name) + (" (synthetic)" if dataset.synthetic else "")
    return DatasetRecord(
        name=dataset.name,
        title=title,
        synthetic=dataset.synthetic,
        fingerprint=dataset.fingerprint(),
        root=str((dataset.made_from or dataset.root).absolute()),
        has_masks=dataset.has_masks,
        notes=list(dataset.notes),
        decoding=dataset.decoding.as_dict(),
        objects=len(protocol.objects),
        objects_known=len(card.objects) if card else None,
        licence="synthetic, no licence" if dataset.synthetic else (card.licence if card else ""),
        counts=counts,
    )


def protocol_record(protocol: Protocol, experiences: Sequence[Sequence[str]]) -> ProtocolRecord:
    """The protocol of a run; ``experiences``: its objects in training order (one list for ``joint``)."""
    return ProtocolRecord(
        id=protocol.id,
        title=protocol.title,
        order=protocol.order,
        experiences=[list(e) for e in experiences],
        version=protocol.version,
        stream=protocol.stream.settings if protocol.stream else None,
    )


def begun_record(
    plan: Plan, donor: RunRecord, costs: Costs, parent: Parent | None = None, base: SharedBase | None = None
) -> RunRecord:
    """The record of a run that continues from experiences trained in another run.

    Args:
        plan: The run.
        donor: The record of the other run.
        costs: The costs of the copied experiences.
        parent: The donor, if the run extends it.
        base: The donor, if a sweep reuses its base experience.

    Returns:
        An interrupted run, which is resumed after the last of these experiences.
    """
    return RunRecord(
        id=plan.id,
        status=INTERRUPTED,
        seed=plan.request.seed,
        recipe_hash=plan.recipe_hash,
        dataset=donor.dataset,
        strategy=donor.strategy,
        backbone=donor.backbone,
        environment=donor.environment,
        recipe=plan.recipe.as_dict(),
        protocol=ProtocolRecord(id=plan.protocol.id, experiences=[list(e) for e in plan.experiences]),
        request=plan.request.as_dict(),
        seconds=Seconds(0.0, 0.0, 0.0, 0.0),
        costs=costs,
        parent=parent,
        shared_base=base,
    )
