"""Protocols: which objects arrive in which experience.

Id grammar: ``<dataset>_<X>_<Y>[x<N>]``: X base objects, then N (default 1) experiences of Y objects
each, in the data set's order. ``<dataset>_<N>x<M>``, as papers write it, is another name of M experiences of
N objects each (``mvtec_1x15`` is ``mvtec_1_1x14``). The published protocols have cards with their objects
written out; any other id that fits the grammar works without one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from iufbench.cards.registry import card_paths
from iufbench.cards.strategies import read_yaml
from iufbench.support.errors import InputError
from iufbench.support.fields import build, suggest
from iufbench.support.names import problem_with_name

# One way to write a number, so that one protocol has one id; no data set has ten thousand objects.
_N = r"0|[1-9][0-9]{0,3}"
_DATASET = r"(?P<dataset>[^\W_][\w.-]*?)"  # letters and digits of any script first
_EQUAL = re.compile(rf"{_DATASET}_(?P<step>{_N})x(?P<count>{_N})")
_GRAMMAR = re.compile(rf"{_DATASET}_(?P<base>{_N})_(?P<step>{_N})(?:x(?P<count>{_N}))?")


@dataclass(frozen=True)
class Protocol:
    """``experiences[t]`` are the objects that experience t introduces; experience 0 is the base.

    ``order`` says where the order comes from: ``dataset`` (its own, alphabetical for MVTec AD and
    VisA), ``published:<name>``, ``seed:<k>`` or ``given``.
    """

    id: str
    dataset: str
    experiences: tuple[tuple[str, ...], ...]
    title: str = ""
    order: str = "dataset"
    aliases: tuple[str, ...] = ()
    source: str = ""
    version: int = 1

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(o for experience in self.experiences for o in experience)

    @property
    def introduced(self) -> tuple[int, ...]:
        """The experience that introduces each of ``objects``."""
        return tuple(t for t, experience in enumerate(self.experiences) for _ in experience)


def protocol_cards() -> dict[str, Protocol]:
    """Every protocol that has a card, by id."""
    cards = {}
    for name, path in card_paths("protocol").items():
        protocol = build(Protocol, read_yaml(path), str(path))
        if protocol.id != name:
            raise InputError(f"{path}: the id '{protocol.id}' differs from the file's name")
        cards[name] = protocol
    return cards


def find_protocol(name: str) -> tuple[str, Protocol | None]:
    """(data set name, card or None) for an id, an alias or any other name that fits the grammar.

    Raises InputError with suggestions when the name is none of these.
    """
    cards = protocol_cards()
    by_name = {_plain(alias): p for p in cards.values() for alias in (p.id, *p.aliases)}
    name = _one_way(name)
    if (card := by_name.get(_plain(name))) is not None:
        return card.dataset, card
    match = _GRAMMAR.fullmatch(name)
    if match is None:
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise InputError(
            f"unknown protocol '{shown}'{suggest(_plain(name), by_name)} (known: {', '.join(cards)}; "
            "or <dataset>_<X>_<Y>[x<N>]: X base objects, then N experiences of Y objects (visa_2_2x5); "
            "or <dataset>_<N>x<M>: M experiences of N objects (visa_2x6); the name of a data set is letters, "
            "digits, '_', '.' and '-', the first a letter or digit)"
        )
    rule = problem_with_name(match["dataset"])
    if rule is not None:
        raise InputError(f"'{match['dataset']}' cannot name a data set; the rule: {rule}")
    return match["dataset"], None


def _plain(name: str) -> str:
    """A name as it is compared: papers write "14-1 with 1 Step" and "14-1 with 1 step"."""
    return " ".join(name.lower().split())


def _one_way(name: str) -> str:
    """``<dataset>_<N>x<M>`` in the words of the other grammar; any other name as it is.

    >>> _one_way("mvtec_1x15"), _one_way("visa_6x2"), _one_way("visa_8_1x4")
    ('mvtec_1_1x14', 'visa_6_6', 'visa_8_1x4')
    """
    match = _EQUAL.fullmatch(name)
    if match is None or _GRAMMAR.fullmatch(name):
        return name
    step, count = int(match["step"]), int(match["count"])
    if step == 0 or count < 2:
        raise InputError(
            f"protocol '{name}': <N>x<M> is M experiences of N objects each, with N >= 1 and M >= 2 "
            "(all objects in one experience: --strategy joint)"
        )
    return f"{match['dataset']}_{step}_{step}" + (f"x{count - 1}" if count > 2 else "")


def resolve_protocol(
    name: str,
    objects: Sequence[str],
    order: Sequence[str] | None = None,
    order_seed: int | None = None,
    orders: Mapping[str, Sequence[str]] | None = None,
) -> Protocol:
    """The protocol on a data set whose own object order is ``objects``.

    ``order`` gives another order of objects, or the name of one of the published ``orders``;
    ``order_seed`` shuffles them reproducibly. Both become part of the id, so results of different orders
    are never mixed. Raises InputError when the data set has too few objects, or the order names unknown or
    repeated ones.
    """
    dataset, card = find_protocol(name)
    name = _one_way(name)
    if card is not None:
        sizes = [len(e) for e in card.experiences]
        sequence: Sequence[str] = card.objects
        protocol_id = card.id
    else:
        match = _GRAMMAR.fullmatch(name)
        assert match is not None  # find_protocol has seen to it
        base, step, count = int(match["base"]), int(match["step"]), int(match["count"] or 1)
        if base == 0 or (count > 0 and step == 0):
            raise InputError(f"protocol '{name}': an experience needs at least one object")
        if match["count"] is not None and count == 0:
            raise InputError(f"protocol '{name}': x0 leaves no increment; the smallest is x1")
        sizes = [base] + [step] * count
        sequence = objects
        protocol_id = name if count != 1 else f"{dataset}_{base}_{step}"
    if order is None and sum(sizes) > len(objects):
        raise InputError(
            f"protocol '{name}' needs {sum(sizes)} objects, "
            f"but {dataset} has {len(objects)}: {', '.join(objects)}"
        )
    origin = "dataset"
    if order is not None and order_seed is not None:
        raise InputError("--order and --order-seed cannot be given together")
    published = {_plain(key).replace("_", "-"): list(value) for key, value in (orders or {}).items()}
    if order is not None and len(order) == 1 and order[0] not in objects:
        key = _plain(order[0]).replace("_", "-")
        if key not in published:
            known = f"has: {', '.join(objects)}; orders: {', '.join(published) or 'none published'}"
            raise InputError(f"--order: no object or order '{order[0]}'{suggest(key, published)} ({known})")
        sequence, origin = published[key], f"published:{key}"
        if len(sequence) < sum(sizes):
            raise InputError(
                f"--order {key} has {len(sequence)} objects, protocol '{name}' needs {sum(sizes)}"
            )
        protocol_id += f"+{key}"
    elif order is not None:
        sequence, origin = _given_order(order, objects, sum(sizes), name), "given"
        joined = "-".join(sequence)
        # A folder name has room for two objects, not for fifteen; run.json has the order in full.
        dashes = any("-" in name for name in sequence)  # a-b and c would be read as a and b-c
        text = "\0".join(sequence) if dashes else joined
        short = len(joined) <= 40 and not dashes
        protocol_id += "+" + (joined if short else hashlib.sha256(text.encode()).hexdigest()[:8])
    elif order_seed is not None:
        shuffled = np.random.Generator(np.random.PCG64(order_seed)).permutation(len(objects))
        sequence, origin = [objects[i] for i in shuffled], f"seed:{order_seed}"
        protocol_id += f"+order{order_seed}"
    missing = [o for o in sequence if o not in objects]
    if missing:
        raise InputError(
            f"protocol '{name}': {dataset} has no object '{missing[0]}' (has: {', '.join(objects)})"
        )
    groups, start = [], 0
    for size in sizes:
        groups.append(tuple(sequence[start : start + size]))
        start += size
    if card is not None and origin == "dataset":
        return card
    title = card.title if card is not None else _title(sizes)
    made = Protocol(id=protocol_id, dataset=dataset, experiences=tuple(groups), title=title, order=origin)
    return made if card is None else replace(made, source=card.source, version=card.version)


def _given_order(order: Sequence[str], objects: Sequence[str], needed: int, name: str) -> list[str]:
    for item in order:
        if item not in objects:
            raise InputError(
                f"--order: no object '{item}'{suggest(item, objects)} (has: {', '.join(objects)})"
            )
    repeated = [o for o in order if list(order).count(o) > 1]
    if repeated:
        raise InputError(f"--order names '{repeated[0]}' twice")
    if len(order) != needed:
        raise InputError(f"--order names {len(order)} objects, protocol '{name}' needs {needed}")
    return list(order)


def _title(sizes: Sequence[int]) -> str:
    steps = len(sizes) - 1
    return f"{sizes[0]}-{sizes[1]} with {steps} Step{'s' if steps > 1 else ''}"
