"""Streams: modifications of a protocol's images, in addition to the arrival of new objects.

A run selects one as ``<protocol>@<stream>`` or, for streams of a single object, ``<dataset>@<stream>``:

    mvtec_10_1x5@few_shot_4        new objects come with 4 images each
    mvtec_10_1x5@contaminated_10   10 % of the training images of every object are defective
    mvtec_3_3x4@recurring          the base objects come back at the end, with other images
    mvtec@bottle_50_50x4           50 images of bottle, then four times 50 more (``growing``)
    mvtec@drift_blur               the images of one object change step by step

A stream is a card (``benchmarks/streams``, or the user's own file). A number after its name replaces the
value of the key that the card declares as its ``parameter``.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from iufbench.cards.registry import card_paths
from iufbench.cards.yaml_files import read_yaml
from iufbench.support.errors import InputError
from iufbench.support.fields import build, number, suggest

GROWING = re.compile(r"(?P<object>.+)_(?P<base>[1-9]\d*)_(?P<step>[1-9]\d*)x(?P<steps>[1-9]\d*)")
ONE_OBJECT = ("growing", "drift")
SEPARATOR = "@"

COMMON = ("id", "kind", "title", "source", "version", "parameter")
KEYS = {
    "growing": ("object", "base", "step", "steps"),
    "few_shot": ("images",),
    "contaminated": ("percent",),
    "recurring": ("returns",),
    "drift": ("object", "transform", "levels", "conditions"),
}
WHOLE = {"blur": 0, "jpeg": 0}  # transform -> place of the value of a level that is a whole number

# transform -> (name, minimum, maximum) of each value of a level, in the order of the drift card.
LEVELS: dict[str, tuple[tuple[str, float, float], ...]] = {
    "color": (("from", 0.0, 0.5), ("to", 0.0, 0.5)),
    "blur": (("kernel", 1, 31), ("sigma", 0.1, 10.0)),
    "geometry": (("degrees", 0, 180), ("translate", 0, 35), ("scale", 0.0, 0.25), ("shear", 0, 45)),
    "lighting": (("brightness", 0.1, 4.0),),
    "noise": (("sigma", 0.0, 0.5),),
    "jpeg": (("quality", 1, 100),),
}


@dataclass(frozen=True)
class Stream:
    """A stream card. ``kind`` determines which keys are used:

    ``growing``: ``base`` images of one object, then ``step`` more in each of ``steps`` steps (at most what is
    left in the last).
    ``few_shot``: objects after the base experience have ``images`` training images each.
    ``contaminated``: ``percent`` of every object's training images are defective images from its test set.
    ``recurring``: the first ``returns`` experiences are repeated at the end; an object's images are divided
    among its visits.
    ``drift``: one object; an unchanged step, then one step for each of the ``levels`` of ``transform``. With
    the transform ``recorded``, the steps are the ``conditions`` that the data set was recorded under.
    """

    id: str
    kind: Literal["growing", "few_shot", "contaminated", "recurring", "drift"]
    title: str = ""
    source: str = ""
    version: int = 1
    parameter: str = ""
    base: int = number(50, at_least=1)
    step: int = number(50, at_least=1)
    steps: int = number(4, at_least=1)
    images: int = number(4, at_least=1)
    percent: float = number(10.0, above=0, at_most=50)
    returns: int = number(1, at_least=1)
    transform: Literal["color", "blur", "geometry", "lighting", "noise", "jpeg", "recorded"] | None = None
    levels: tuple[tuple[float, ...], ...] = ()
    conditions: tuple[str, ...] = ()
    object: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that affect images (all except texts), for records and fingerprints."""
        words = ("title", "source", "parameter", *(() if self.conditions else ("conditions",)))
        return {key: value for key, value in asdict(self).items() if key not in words}

    @property
    def changes(self) -> int:
        """How many steps of a drift follow the first."""
        return len(self.conditions) - 1 if self.transform == "recorded" else len(self.levels)


def stream_cards() -> dict[str, Path]:
    """The card files of all streams, by id."""
    return card_paths("stream")


def find_stream(name: str) -> Stream:
    """Find a stream by card id, by id and number, by ``<object>_<X>_<Y>x<N>``, or by file.

    Raises InputError, with suggestions, if the name is none of these or the card is invalid.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name))
    cards = stream_cards()
    if name in cards:
        return _read(cards[name])
    stem, _, value = name.rpartition("_")
    if stem in cards and re.fullmatch(r"\d+(\.\d+)?", value):
        card = _read(cards[stem])
        if not card.parameter:
            raise InputError(f"stream '{name}': {stem} has no parameter that a number could set")
        content = {**read_yaml(cards[stem]), "id": name, card.parameter: _number(value)}
        return _checked(content, f"stream '{name}'")
    match = GROWING.fullmatch(name)
    if match is not None:
        sizes = {key: int(match[key]) for key in ("base", "step", "steps")}
        content = {**read_yaml(cards["growing"]), **sizes, "id": name, "object": match["object"]}
        return _checked(content, f"stream '{name}'")
    raise InputError(
        f"unknown stream '{name}'{suggest(name, cards)} (known: {', '.join(cards)}, <object>_<X>_<Y>x<N>)"
    )


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _read(path: Path) -> Stream:
    return _checked(read_yaml(path), str(path))


def _checked(content: dict[str, Any], where: str) -> Stream:
    """The stream of a card's content. Raises InputError for keys and values that its kind does not have."""
    stream = build(Stream, content, where)
    own = KEYS[stream.kind]
    for key in (*(k for k in content if k not in COMMON), *filter(None, [stream.parameter])):
        if key not in own:
            raise InputError(f"{where}: a {stream.kind} stream has no key {key!r} (it has: {', '.join(own)})")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,80}", stream.id):
        raise InputError(f"{where}: id is {stream.id!r}, must be letters, digits, '_', '-' and '.'")
    if stream.kind != "drift":
        return stream
    if stream.transform == "recorded":
        given = stream.conditions
        if len(given) < 2 or len(set(given)) < len(given) or stream.levels:
            raise InputError(
                f"{where}: a recorded drift needs two or more different conditions and no levels"
            )
        return stream
    if stream.conditions:
        raise InputError(f"{where}: conditions belong to transform: recorded, not to {stream.transform}")
    if stream.transform is None or not stream.levels:
        allowed = ", ".join(LEVELS)
        raise InputError(
            f"{where}: a drift needs the keys transform ({allowed}) and levels, or transform: recorded and "
            "conditions"
        )
    fields = LEVELS[stream.transform]
    for place, level in enumerate(stream.levels):
        if len(level) != len(fields):
            names = ", ".join(name for name, _, _ in fields)
            raise InputError(f"{where}: levels[{place}] must be [{names}], not {list(level)}")
        for value, (name, lowest, highest) in zip(level, fields):
            if not lowest <= value <= highest:
                raise InputError(
                    f"{where}: levels[{place}]: {name} is {value:g}, must be from {lowest:g} to {highest:g}"
                )
        whole = WHOLE.get(stream.transform)
        if whole is not None and not level[whole].is_integer():
            raise InputError(
                f"{where}: levels[{place}]: {fields[whole][0]} is {level[whole]:g}, must be a whole number"
            )
        if stream.transform == "color" and level[0] > level[1]:
            raise InputError(f"{where}: levels[{place}]: from is {level[0]:g}, above to: {level[1]:g}")
    if stream.transform == "blur" and any(level[0] % 2 == 0 for level in stream.levels):
        raise InputError(f"{where}: the kernel of a blur must be an odd number of pixels")
    return stream
