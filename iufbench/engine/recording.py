"""What ``run.json`` says about data and protocol, for trained and external runs alike. Without torch."""

from __future__ import annotations

from collections.abc import Sequence

from iufbench.cards.datasets import DataSetCard
from iufbench.cards.protocols import Protocol
from iufbench.data.samples import DataSet
from iufbench.reporting.record import DatasetRecord, ProtocolRecord


def dataset_record(
    dataset: DataSet, card: DataSetCard | None, protocol: Protocol, counts: dict[str, dict[str, int]]
) -> DatasetRecord:
    """The data of a run; ``counts``: images that it uses, per object (``train``, ``test``)."""
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
    """The protocol of a run; ``experiences``: its objects as they were trained (one list for ``joint``)."""
    return ProtocolRecord(
        id=protocol.id,
        title=protocol.title,
        order=protocol.order,
        experiences=[list(e) for e in experiences],
        version=protocol.version,
        stream=protocol.stream.settings if protocol.stream else None,
    )
