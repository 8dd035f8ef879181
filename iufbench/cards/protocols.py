"""Protocols: which objects arrive in which experience.

Id grammar: ``<dataset>_<X>_<Y>[x<N>]``: X base objects, then N (default 1) experiences of Y objects
each, in the data set's order; ``<dataset>_<X>_0`` has no increments. ``<dataset>_<N>x<M>``, the notation of
some papers, means M experiences of N objects each (``mvtec_1x15`` is ``mvtec_1_1x14``). The published
protocols have cards that list their objects; any other id that matches the grammar works without a card.
``<protocol>@<stream>`` adds a stream that modifies the images (``iufbench.cards.streams``). A ``.yaml`` file
is the user's own protocol card.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iufbench.cards.registry import card_paths
from iufbench.cards.streams import ONE_OBJECT, SEPARATOR, Stream, find_stream
from iufbench.cards.yaml_files import read_yaml
from iufbench.support.errors import InputError
from iufbench.support.fields import build, suggest
from iufbench.support.names import problem_with_name

# Canonical numbers only, so that each protocol has a single id; no data set has ten thousand objects.
_N = r"0|[1-9][0-9]{0,3}"
_DATASET = r"(?P<dataset>[^\W_][\w.-]*?)"  # starts with a letter or digit of any script
_EQUAL = re.compile(rf"{_DATASET}_(?P<step>{_N})x(?P<count>{_N})")
_GRAMMAR = re.compile(rf"{_DATASET}_(?P<base>{_N})_(?P<step>{_N})(?:x(?P<count>{_N}))?")


@dataclass(frozen=True)
class Protocol:
    """``experiences[t]`` are the objects that experience t trains on; experience 0 is the base.

    With a ``stream`` an object may be in several experiences; the objects of a drift are one object's images
    at each level (``bottle@2``).

    ``order`` is the origin of the object order: ``dataset`` (the data set's own, alphabetical for MVTec AD
    and VisA), ``published:<name>``, ``seed:<k>`` or ``given``.
    """

    id: str
    dataset: str
    experiences: tuple[tuple[str, ...], ...]
    title: str = ""
    order: str = "dataset"
    aliases: tuple[str, ...] = ()
    source: str = ""
    version: int = 1
    stream: Stream | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects, in the order in which experiences first train on them; each has one test set."""
        return tuple(dict.fromkeys(o for experience in self.experiences for o in experience))

    @property
    def introduced(self) -> tuple[int, ...]:
        """The experience that introduces each of ``objects``."""
        return tuple(
            next(t for t, experience in enumerate(self.experiences) if o in experience) for o in self.objects
        )

    def seen(self, number: int) -> int:
        """How many of ``objects`` have been trained on after experience ``number`` (from 0)."""
        return sum(t <= number for t in self.introduced)

    @property
    def products(self) -> tuple[str, ...]:
        """The data set's objects behind ``objects``."""
        return tuple(dict.fromkeys(map(self.product_of, self.objects)))

    def product_of(self, name: str) -> str:
        """The data set's object behind one of ``objects``."""
        drift = self.stream is not None and self.stream.kind == "drift"
        return name.rpartition("@")[0] if drift else name


def protocol_cards() -> dict[str, Protocol]:
    """All protocols with a card, by id."""
    cards = {}
    for name, path in card_paths("protocol").items():
        protocol = build(Protocol, read_yaml(path), str(path))
        if protocol.id != name:
            raise InputError(f"{path}: the id '{protocol.id}' differs from the file's name")
        cards[name] = protocol
    return cards


def find_protocol(name: str) -> tuple[str, Protocol | None]:
    """(data set name, card or None) for an id, an alias or any other name that matches the grammar.

    Raises InputError with suggestions if the name is none of these.
    """
    if _is_file(name):
        own = _own_card(Path(name))
        return own.dataset, own
    base, _, stream = name.partition(SEPARATOR)
    if stream:
        if find_stream(stream).kind not in ONE_OBJECT:
            return find_protocol(base)
        _require_data_set(base, stream)
        return require_dataset_name(base), None
    cards = protocol_cards()
    by_name = _by_name(cards)
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
    return require_dataset_name(match["dataset"]), None


def _by_name(cards: Mapping[str, Protocol]) -> dict[str, Protocol]:
    """Protocols by id and alias."""
    return {_plain(alias): p for p in cards.values() for alias in (p.id, *p.aliases)}


def _require_data_set(base: str, stream: str) -> None:
    """Raise InputError if ``base``, to which a stream of one object is added, is a protocol."""
    card = _by_name(protocol_cards()).get(_plain(base))
    match = _GRAMMAR.fullmatch(base) or _EQUAL.fullmatch(base)
    dataset = card.dataset if card is not None else match["dataset"] if match is not None else None
    if dataset is not None:
        raise InputError(
            f"'{base}' is a protocol, but stream '{stream}' changes one object of a data set: "
            f"{dataset}@{stream}, with --order OBJECT"
        )


def require_dataset_name(name: str) -> str:
    """The name of a data set, unchanged. Raises InputError, with the rule, if it cannot be one."""
    rule = problem_with_name(name)
    if rule is None and not re.fullmatch(_DATASET, name):
        rule = "letters, digits, '_', '.' and '-', the first a letter or digit"
    if rule is None and name.endswith("-synthetic"):
        rule = "'-synthetic' is added to the names of generated data sets (--synthetic, SYNTHETIC.json)"
    if rule is not None:
        raise InputError(f"{name[:60]!r} cannot name a data set; the rule: {rule}")
    return name


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and (SEPARATOR not in name or Path(name).is_file())


def _own_card(path: Path) -> Protocol:
    """The user's own protocol card. Raises InputError if its id belongs to another protocol."""
    protocol = build(Protocol, read_yaml(path), str(path))
    if protocol.id in protocol_cards() or _GRAMMAR.fullmatch(protocol.id):
        raise InputError(f"{path}: the id '{protocol.id}' belongs to another protocol: choose another id")
    if len(protocol.objects) < sum(map(len, protocol.experiences)):
        raise InputError(f"{path}: an object is in several experiences (recurring objects: @recurring)")
    return protocol


def _plain(name: str) -> str:
    """Normalise a name for comparison: papers write "14-1 with 1 Step" and "14-1 with 1 step"."""
    return " ".join(name.lower().split())


def _one_way(name: str) -> str:
    """Rewrite ``<dataset>_<N>x<M>`` in the other grammar; any other name is returned unchanged.

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
    """Resolve a protocol on a data set.

    ``order`` and ``order_seed`` become part of the id, so results of different orders are never mixed.

    Args:
        name: Id, alias, or path of a protocol card.
        objects: The objects of the data set, in its own order.
        order: A different order of objects, or the name of one of ``orders``.
        order_seed: Shuffle the objects reproducibly.
        orders: Published orders of objects, by name.

    Returns:
        The protocol.

    Raises:
        InputError: The data set has too few objects, or the order names unknown or repeated ones.
    """
    protocol_name, _, stream_name = (name, "", "") if _is_file(name) else name.partition(SEPARATOR)
    if stream_name:
        return _with_stream(protocol_name, find_stream(stream_name), objects, order, order_seed, orders)
    dataset, card = find_protocol(name)
    typed, name = name, _one_way(name)
    if card is not None:
        sizes = [len(e) for e in card.experiences]
        sequence: Sequence[str] = card.objects
        protocol_id = card.id
    else:
        match = _GRAMMAR.fullmatch(name)
        assert match is not None  # checked by find_protocol
        base, step, count = int(match["base"]), int(match["step"]), int(match["count"] or 1)
        alone = step == 0 and match["count"] is None  # a base without increments
        if base == 0 or (count > 0 and step == 0 and not alone):
            raise InputError(f"protocol '{typed}': an experience needs at least one object")
        if match["count"] is not None and count == 0:
            raise InputError(f"protocol '{typed}': x0 leaves no increment; the smallest is x1")
        sizes = [base] + ([] if alone else [step] * count)
        sequence = objects
        protocol_id = name if count != 1 else f"{dataset}_{base}_{step}"
    if order is None and sum(sizes) > len(objects):
        raise InputError(
            f"protocol '{typed}' needs {sum(sizes)} objects, "
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
                f"--order {key} has {len(sequence)} objects, protocol '{typed}' needs {sum(sizes)}"
            )
        protocol_id += f"+{key}"
    elif order is not None:
        sequence, origin = _given_order(order, objects, sum(sizes), typed), "given"
        joined = "-".join(sequence)
        # A folder name has room for two objects, not for fifteen; run.json has the complete order.
        dashes = any("-" in name for name in sequence)  # a-b and c would be confused with a and b-c
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
            f"protocol '{typed}': {dataset} has no object '{missing[0]}' (has: {', '.join(objects)})"
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


def _with_stream(
    base: str,
    stream: Stream,
    objects: Sequence[str],
    order: Sequence[str] | None,
    order_seed: int | None,
    orders: Mapping[str, Sequence[str]] | None,
) -> Protocol:
    """Apply a stream to a protocol or to one object of a data set."""
    if stream.kind not in ONE_OBJECT:
        plain = resolve_protocol(base, objects, order, order_seed, orders)
        core, plus, suffix = plain.id.partition("+")
        groups = plain.experiences
        if stream.kind == "recurring":
            if stream.returns >= len(groups):
                raise InputError(
                    f"stream '{stream.id}': returns is {stream.returns}, must be less than the {len(groups)} "
                    f"experiences of '{base}'"
                )
            groups += groups[: stream.returns]
        title = f"{plain.title}; {stream.title or stream.id}"
        return replace(
            plain,
            id=f"{core}@{stream.id}{plus}{suffix}",
            experiences=groups,
            title=title,
            aliases=(),
            stream=stream,
        )
    chosen = [stream.object] if stream.object else list(order or objects[:1])
    if order_seed is not None or len(chosen) != 1 or (stream.object and order is not None):
        raise InputError(f"stream '{stream.id}' is about one object: name it with --order OBJECT")
    if chosen[0] not in objects:
        raise InputError(
            f"{base} has no object '{chosen[0]}'{suggest(chosen[0], objects)} ({', '.join(objects)})"
        )
    steps = stream.steps if stream.kind == "growing" else stream.changes
    names = [chosen[0]] * (steps + 1)
    if stream.kind == "drift":
        names = [f"{chosen[0]}@{level}" for level in range(steps + 1)]
    protocol_id = f"{base}@{stream.id}" + ("" if stream.object else f"+{chosen[0]}")
    title = f"{chosen[0]}: {stream.title or stream.id}"
    groups = tuple((name,) for name in names)
    return Protocol(protocol_id, base, groups, title, order="given", source=stream.source, stream=stream)


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
    if len(sizes) == 1:
        return f"{sizes[0]} object{'s' if sizes[0] > 1 else ''}, no increment"
    steps = len(sizes) - 1
    return f"{sizes[0]}-{sizes[1]} with {steps} Step{'s' if steps > 1 else ''}"
