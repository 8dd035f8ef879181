"""The protocol and the data that a run's request specifies."""

from __future__ import annotations

from iufbench.cards.protocols import Protocol, find_protocol, resolve_protocol
from iufbench.cards.request import Request
from iufbench.data.changes import contaminated, drifted
from iufbench.data.conditions import by_condition
from iufbench.data.datasets import MIXED, known_objects, known_orders, open_requested, synthetic_root
from iufbench.data.samples import DataSet


def requested_protocol(request: Request) -> Protocol:
    """The protocol with its objects in the requested order. Raises InputError if it is invalid."""
    name, card = find_protocol(request.protocol)
    if card is not None and name == MIXED:
        return resolve_protocol(request.protocol, card.objects, request.order, request.order_seed)
    root, lists, order = request.data_root, request.lists, request.order
    orders = known_orders(name, root, lists, request.card) if order is not None else {}
    listed = order if order is None else orders.get(order[0], order)
    objects = known_objects(name, root, lists, listed, request.card, request.good_names)
    return resolve_protocol(request.protocol, objects, request.order, request.order_seed, orders)


def requested_data(request: Request, protocol: Protocol, progress: bool = True) -> DataSet:
    """The data set with the protocol's objects, modified by its stream.

    Synthetic images and those of a drift are generated in the cache folder on first use. Raises InputError if
    data are missing or invalid.
    """
    root, stream = request.data_root, protocol.stream
    if request.synthetic:
        root = synthetic_root(protocol.dataset, request.data_seed, progress=progress)
    dataset = open_requested(request, protocol.dataset, protocol.products, root)
    if stream is not None and stream.kind == "contaminated":
        return contaminated(dataset, stream)
    if stream is not None and stream.kind == "drift":
        divided = by_condition if stream.transform == "recorded" else drifted
        return divided(dataset, protocol.products[0], stream)
    return dataset
