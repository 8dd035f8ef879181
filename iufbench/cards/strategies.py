"""Strategy cards: YAML files that define a recipe completely, resolved into typed values.

Order of precedence, later wins: what the card ``extends`` (presets included), the card itself, its own
``per_dataset`` and ``per_protocol`` overrides, its own preset, ``--set``. The resolved card is written into
the run directory; its hash identifies the recipe in tables.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from iufbench.cards.layers import SECTIONS, extended, leaves, merge
from iufbench.cards.registry import MOVED, find_card, find_template
from iufbench.cards.yaml_files import parse_yaml, read_yaml
from iufbench.support.errors import InputError
from iufbench.support.fields import build, number, suggest

PRESETS = ("paper", "quick", "dinov2_small", "dinov2_base", "wide_resnet50")
FAMILIES = {
    "bounds": "bounds",
    "networks": "networks",
    "regularisers": "regularisers",
    "rehearsal": "rehearsal",
    "memories": "memories",
    "iuf": "IUF",
    "other": "other",
}
"""Kinds of strategies, with their names in figures, in the order in which results show them."""
Family = Literal["bounds", "networks", "regularisers", "rehearsal", "memories", "iuf", "other"]
WEIGHT_SOURCES = ("package", "pretrained", "random")


@dataclass(frozen=True)
class Backbone:
    """The frozen network in front of every learner.

    ``weights``: ``package`` (from an installed Python package), ``pretrained`` (timm's own download),
    ``random`` (labelled as such in every result) or a file. ``padding``: ``timm``, or ``released`` for
    the one layer in which the released IUF/UniAD code pads differently at 224. ``precision``: precision to
    which features are rounded before any learner receives them. ``groups``: layers combined into one block of
    channels each (the mean if their channels are equal), instead of stacking all layers. ``norm``: apply the
    final normalisation of a transformer. ``vector``: per-image feature vector in addition to the map.
    ``stride``: pixels from one position of the map to the next, null for 16 or a transformer's patch size.
    """

    name: str
    weights: str = "pretrained"
    layers: tuple[int, ...] = (0, 1, 2, 3)
    padding: Literal["timm", "released"] = "timm"
    precision: Literal["float16", "float32"] = "float16"
    groups: tuple[tuple[int, ...], ...] | None = None
    norm: bool = False
    vector: Literal["none", "class_token", "mean"] = "none"
    stride: Literal[4, 8, 16, 32] | None = None


_LATER_BACKBONE: dict[str, Any] = {"groups": None, "norm": False, "vector": "none", "stride": None}
_LATER_TRAINING: dict[str, Any] = {"final_factor": 0.0}
_LATER_NETWORK: dict[str, Any] = {"position": "learned", "mask_switches": [True, True, True]}


@dataclass(frozen=True)
class Network:
    """The reconstruction transformer (UniAD, NeurIPS 2022); defaults are the published values.

    ``position``: position embedding, ``learned`` or ``sine``. ``mask_switches``: whether the neighbour mask
    is applied in the encoder, in the decoder's attention to the encoder, and to the previous layer.
    """

    hidden: int = number(256, at_least=4, at_most=16384)
    heads: int = number(8, at_least=1, at_most=1024)
    feedforward: int = number(1024, at_least=1, at_most=65536)
    encoder_layers: int = number(4, at_least=1, at_most=256)
    decoder_layers: int = number(4, at_least=1, at_most=256)
    dropout: float = number(0.1, at_least=0, below=1)
    neighbour_mask: int | None = number(None, at_least=1)
    mask_switches: tuple[bool, ...] = (True, True, True)
    position: Literal["learned", "sine"] = "learned"
    jitter_scale: float = number(20.0, at_least=0)
    jitter_probability: float = number(1.0, at_least=0, at_most=1)
    standardise: bool = False

    def __post_init__(self) -> None:
        if len(self.mask_switches) != 3:
            raise InputError(
                f"network.mask_switches must be three of true and false, not {len(self.mask_switches)}"
            )


@dataclass(frozen=True)
class Training:
    """How one experience is trained. ``epochs`` may list one number per increment. ``final_factor``: fraction
    of ``lr`` at the end of a cosine schedule."""

    epochs: int | list[int] = number(at_least=1, at_most=1_000_000)
    batch_size: int = number(at_least=1, at_most=1_000_000)
    optimizer: Literal["adamw", "sgd", "stable_adamw"] = "adamw"
    lr: float = number(1e-4, above=0)
    weight_decay: float = number(1e-4, at_least=0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_epochs: int = number(800, at_least=1)
    step_gamma: float = number(0.1, above=0)
    warmup_iterations: int = number(0, at_least=0)
    clip_norm: float | None = number(None, above=0)
    final_factor: float = number(0.0, at_least=0, at_most=1)

    def epochs_of(self, increment: int) -> int:
        """Epochs of the base (0) or the n-th increment (1, 2, ...); the last value of a list is repeated."""
        if isinstance(self.epochs, int):
            return self.epochs
        return self.epochs[min(max(increment - 1, 0), len(self.epochs) - 1)]


@dataclass(frozen=True)
class Resources:
    """Resources that a run requests from a cluster: logical CPUs, GPUs, MiB. They do not affect scores.

    None means the default. Options of ``iufbench sweep`` and the measured memory of finished runs take
    precedence over the card.
    """

    cpus: float | None = number(None, above=0)
    gpus: float | None = number(None, at_least=0)
    memory_mb: float | None = number(None, above=0)


@dataclass(frozen=True)
class Recipe:
    """A resolved strategy card. ``options`` holds the learner's own blocks, checked by its ``Options``.

    ``score``: how an anomaly map becomes an image's score (``metrics.image.image_score``).
    """

    title: str
    learner: str
    backbone: Backbone
    base: Training
    increment: Training
    version: int = number(1, at_least=1)
    network: Network = field(default_factory=Network)
    description: str = ""
    family: Family = "other"
    stream: Literal["incremental", "joint"] = "incremental"
    image_size: int = number(224, at_least=32, at_most=1024)
    score: Literal["pooled_max", "max", "top1pct"] = "pooled_max"
    evaluation_batch_size: int = number(32, at_least=1)
    resources: Resources = field(default_factory=Resources)
    options: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def training(self, experience: int) -> Training:
        """The schedule of an experience (from 0): ``base`` first, ``increment`` afterwards."""
        return self.base if experience == 0 else self.increment

    def as_dict(self) -> dict[str, Any]:
        """All values, in JSON-serialisable types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def fingerprint(self) -> str:
        """8 hex digits of a hash over everything that can change a score (not texts, not resources)."""
        content = self.as_dict()
        for words in ("title", "description", "family", "provenance", "evaluation_batch_size", "resources"):
            content.pop(words)
        # Keys added later are left out if their value means the earlier behaviour: identities do not change.
        for block, later in (
            (content, {"score": "pooled_max"}),
            (content["backbone"], _LATER_BACKBONE),
            (content["network"], _LATER_NETWORK),
            (content["base"], _LATER_TRAINING),
            (content["increment"], _LATER_TRAINING),
        ):
            for key, usual in later.items():
                if block[key] == usual:
                    del block[key]
        # A learner that was moved keeps the identity of runs made under its first name.
        first_names = {new: old for old, new in MOVED.items()}
        content["learner"] = first_names.get(self.learner, self.learner)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class StrategyCard:
    """A strategy card as written, with what it extends merged in, before presets and overrides.

    ``sources``: path of keys -> name of the card that the value comes from.
    """

    name: str
    path: Path
    content: dict[str, Any]
    sources: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        return str(self.content.get("title", self.name))


def load_strategy(name: str) -> StrategyCard:
    """Load the card of a strategy.

    Args:
        name: Its name, the path of a ``.yaml`` file, or ``NAME:VALUE`` for a card that a value completes
            (``anomalib:Padim``): card ``_NAME.yaml`` with the value at the key named by its ``parameter``.

    Returns:
        The card.

    Raises:
        InputError: There is no such card, or it is invalid.
    """
    stem, sign, value = name.partition(":")
    if not sign or name.endswith((".yaml", ".yml")):
        path = find_card("strategy", name)
        content, sources = _extended(path, ())
        return StrategyCard(name=path.stem, path=path, content=content, sources=sources)
    if not re.fullmatch(r"\w+", value):
        raise InputError(f"strategy '{name}': '{value}' must consist of letters, digits and '_'")
    path = find_template(stem)
    content, sources = _extended(path, ())
    content = merge(content, _setting(f"{content.pop('parameter')}={value}", content))
    content["title"] = f"{content['title']} {value}"
    return StrategyCard(name=f"{stem}-{value}", path=path, content=content, sources=sources)


def _extended(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """A card's content merged over what it extends, and the source card of every value."""
    if path.resolve() in seen:
        raise InputError(f"{path}: extends itself through {' -> '.join(p.name for p in seen)}")
    own = read_yaml(path)
    parent = own.pop("extends", None)
    inherited: dict[str, Any] = {}
    sources: dict[tuple[str, ...], str] = {}
    if parent is not None:
        if not isinstance(parent, str):
            raise InputError(f"{path}: extends must be the name of a card, not {parent!r}")
        beside = path.parent / f"{parent}.yaml"
        try:
            parent_path = beside if beside.is_file() else find_card("strategy", parent)
        except InputError as error:
            raise InputError(f"{path}: extends: {error}") from error
        inherited, sources = _extended(parent_path, (*seen, path.resolve()))
    content = extended(inherited, own)
    said = {leaf: path.stem for leaf, _ in leaves(own)}
    return content, {leaf: said.get(leaf) or sources[leaf] for leaf, value in leaves(content) if value != {}}


def resolve(
    card: StrategyCard,
    dataset: str,
    protocol: str,
    preset: str,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Resolve a card into a recipe.

    Args:
        card: The strategy card.
        dataset: Name of the data set, selects ``per_dataset`` overrides.
        protocol: Id of the protocol, selects ``per_protocol`` overrides.
        preset: Name of the preset.
        settings: ``key=value`` texts as given to ``--set``.
        overrides: Card content that other options (``--backbone``) translate to.

    Returns:
        The recipe.

    Raises:
        InputError: The card or a setting is invalid; the message names the file or ``--set`` and the key.
    """
    content = {k: v for k, v in card.content.items() if k not in SECTIONS}
    for section, key in (("per_dataset", dataset), ("per_protocol", protocol), ("presets", preset)):
        block = card.content.get(section, {})
        if not isinstance(block, Mapping):
            raise InputError(f"{card.path}: {section} must be a mapping")
        if section == "presets" and (unknown := set(block) - set(PRESETS)):
            raise InputError(f"{card.path}: unknown preset '{min(unknown)}' (allowed: {', '.join(PRESETS)})")
        part = {} if block.get(key) is None else block[key]
        if not isinstance(part, Mapping):
            raise InputError(f"{card.path}: {section}.{key} must be a mapping of keys, not {part!r}")
        content = merge(content, part)
    _build(content, str(card.path))  # check the card alone first, so that errors name the right source
    if overrides:
        content = merge(content, overrides)
    for text in settings:
        content = merge(content, _setting(text, content))
    return _build(content, "--set" if settings else str(card.path))


def _build(content: dict[str, Any], where: str) -> Recipe:
    known = {f.name for f in dataclasses.fields(Recipe)}
    common = {k: v for k, v in content.items() if k in known and k != "options"}
    common["options"] = {k: v for k, v in content.items() if k not in known}
    return build(Recipe, common, where)


def _setting(text: str, content: Mapping[str, Any]) -> dict[str, Any]:
    key, sign, raw = text.partition("=")
    if not sign or not key:
        raise InputError(f"--set {text}: must be key=value, for example --set base.epochs=10")
    shown = text if len(text) <= 80 else text[:77] + "..."
    try:
        value = parse_yaml(raw, "")
    except InputError as error:
        raise InputError(
            f"--set {shown}: the value is not valid YAML ({str(error).lstrip(', :')})"
        ) from error
    *parents, last = key.split(".")
    level: Any = content
    for depth, name in enumerate(parents):
        if not isinstance(level, Mapping) or name not in level:
            known = list(level) if isinstance(level, Mapping) else []
            prefix = ".".join(parents[: depth + 1])
            raise InputError(f"--set {text}: unknown key '{prefix}'{suggest(name, known)}")
        level = level[name]
    result: dict[str, Any] = {last: value}
    for name in reversed(parents):
        result = {name: result}
    return result


def options_of(recipe: Recipe, learner: Any, where: str) -> Any:
    """The card blocks of a learner as its ``Options``. Raises InputError for unknown keys."""
    known_blocks = [f.name for f in dataclasses.fields(learner.Options)]
    for name in recipe.options:
        if name not in known_blocks:
            common = [f.name for f in dataclasses.fields(Recipe)]
            hint = suggest(name, [*known_blocks, *common])
            allowed = ", ".join(sorted({*known_blocks, *common} - {"options"}))
            raise InputError(f"{where}: unknown key '{name}'{hint} (allowed: {allowed})")
    return build(learner.Options, recipe.options, where)
