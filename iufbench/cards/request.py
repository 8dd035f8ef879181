"""The request for one run: protocol, strategy, seed, data and options, as typed."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from iufbench.cards.strategies import WEIGHT_SOURCES
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import PathOrText

Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
MAX_THREADS = 1024


@dataclass(frozen=True)
class Request:
    """One ``iufbench run`` as typed."""

    protocol: str
    strategy: str
    seed: Seed = 0
    data_root: Path | None = None
    synthetic: bool = False
    data_seed: Seed = 0
    lists: tuple[Path, ...] | None = None  # one manifest, or a training and a test list
    preset: str | None = None
    backbone: str | None = None
    weights: str | None = None
    device: str = "auto"
    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] | None = None
    precision: str = "auto"  # resolved when the run is planned: part of its identity
    step: str = "auto"  # how an iteration is executed: auto, eager or graph
    compile: bool = False
    settings: tuple[str, ...] = ()
    order: tuple[str, ...] | None = None
    order_seed: Seed | None = None
    eval_unseen: bool = False
    threshold: str | None = None  # the rule of decision thresholds; None: no calibration
    calibration: float | None = None  # share of the training images set aside; None: 0.1 with a threshold
    init_from: Path | None = None
    cache: bool = True
    diagnose_every: Positive | None = None  # epochs between states for the diagnosis of selection; None: none
    card: Path | None = None  # the user's own data set card
    good_names: tuple[str, ...] = ()  # folders of normal images besides good and ok
    max_pixels: Positive | None = None  # larger images are rejected; None: the default limit
    accept_masks: bool = False  # no warnings about masks
    results: Path = field(default_factory=lambda: Path("results"))

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable values, stored in ``run.json`` to find the data and the card again."""
        plain = dataclasses.asdict(self)
        for name, value in plain.items():
            if isinstance(value, Path):
                plain[name] = str(value.absolute())
        if self.lists is not None:
            plain["lists"] = [str(p.absolute()) for p in self.lists]
        if self.weights is not None and self.weights not in WEIGHT_SOURCES:
            plain["weights"] = str(Path(self.weights).absolute())
        if self.strategy.endswith((".yaml", ".yml")):
            plain["strategy"] = str(Path(self.strategy).absolute())
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], where: Path | str = "run") -> Request:
        """Rebuild a request from the result of ``as_dict``.

        Args:
            plain: Its plain values, such as ``request`` in a ``run.json``.
            where: Their source, for messages.

        Raises:
            RunError: A value has the wrong type or is out of range, or an option is unknown.
        """
        unknown = sorted(set(plain) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise RunError(f"{where}: request: this version has no option {unknown[0][:60]!r}")
        try:
            return msgspec.convert(plain, cls, dec_hook=_path)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            reason, _, key = str(error).partition(" - at `$.")
            key = key.rstrip("`") or "request"
            raise RunError(f"{where}: request: {key}: {reason[:1].lower()}{reason[1:]}") from error


def _path(kind: Any, value: Any) -> Any:
    """Convert text to a path, for ``msgspec``."""
    if not (kind is Path and isinstance(value, str)) or "\0" in value:
        raise ValueError("expected the path of a file or folder")
    return Path(value)


def arguments(request: Request) -> list[str]:
    """The ``iufbench`` arguments that execute only this run; defaults are omitted, except for the seed.

    Options are named like the request's fields. Values that start with a dash are joined to their option.
    """
    named: dict[str, Any] = {}
    if request.lists is not None:
        options = ("manifest",) if len(request.lists) == 1 else ("train_list", "test_list")
        named.update(zip(options, request.lists))
    standard = Request(request.protocol, request.strategy, request.seed)
    for field_ in dataclasses.fields(Request):
        value = getattr(request, field_.name)
        if value != getattr(standard, field_.name) and field_.name != "lists":
            named[field_.name] = value
    for name, option in (("settings", "set"), ("good_names", "good-name")):
        if name in named:
            named[option] = named.pop(name)
    if "order" in named:
        named["order"] = ",".join(named["order"])
    if "diagnose_every" in named:
        named["diagnose_selection"] = True
    words = ["run"]
    first = {"protocol": request.protocol, "strategy": request.strategy, "seed": request.seed}
    for name, value in {**first, **named}.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is False:
            words.append(f"--no-{option[2:]}")
        else:
            for text in map(str, value if isinstance(value, tuple) else (value,)):
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return words


def command(request: Request) -> str:
    """The command that executes only this run, ready to paste."""
    return shlex.join(["iufbench", *arguments(request)])


def lists_of(
    train_list: PathOrText | None, test_list: PathOrText | None, manifest: PathOrText | None
) -> tuple[Path, ...] | None:
    """The lists of images of a request: a manifest, or a training and a test list; None if there are none.

    Raises InputError for one list without the other, and for both kinds.
    """
    pair = [path for path in (train_list, test_list) if path is not None]
    if len(pair) == 1:
        raise InputError("--train-list and --test-list belong together")
    if manifest is not None and pair:
        raise InputError("--manifest and --train-list, --test-list cannot be given together")
    return tuple(map(Path, pair if manifest is None else [manifest])) or None
