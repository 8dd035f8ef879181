"""What one run is asked to be: protocol, strategy, seed, data and options, as typed."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iufbench.cards.strategies import WEIGHT_SOURCES


@dataclass(frozen=True)
class Request:
    """One ``iufbench run`` as typed."""

    protocol: str
    strategy: str
    seed: int = 0
    data_root: Path | None = None
    synthetic: bool = False
    data_seed: int = 0
    lists: tuple[Path, ...] | None = None  # one manifest, or a training and a test list
    preset: str | None = None
    backbone: str | None = None
    weights: str | None = None
    device: str = "auto"
    threads: int | None = None
    precision: str = "auto"  # resolved when the run is planned: part of its identity
    step: str = "auto"  # how an iteration is carried out: auto, eager or graph
    compile: bool = False
    settings: tuple[str, ...] = ()
    order: tuple[str, ...] | None = None
    order_seed: int | None = None
    eval_unseen: bool = False
    init_from: Path | None = None
    cache: bool = True
    diagnose_every: int | None = None  # epochs between states for the diagnosis of selection; None: none
    card: Path | None = None  # the user's own data set card
    good_names: tuple[str, ...] = ()  # folders of normal images beside good and ok
    max_pixels: int | None = None  # images with more are refused; None: the usual limit
    accept_masks: bool = False  # no warnings about masks
    results: Path = field(default_factory=lambda: Path("results"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold: what ``run.json`` keeps to find the data and the card again."""
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
    def from_dict(cls, plain: Mapping[str, Any]) -> Request:
        """The request that ``as_dict`` described."""
        values = dict(plain)
        for name in ("data_root", "init_from", "results", "card"):
            values[name] = None if values.get(name) is None else Path(values[name])
        values["lists"] = None if values["lists"] is None else tuple(map(Path, values["lists"]))
        for name in ("settings", "good_names"):
            values[name] = tuple(values.get(name, ()))
        values["order"] = None if values["order"] is None else tuple(values["order"])
        return cls(**values)


def arguments(request: Request) -> list[str]:
    """The ``iufbench`` arguments that do this run alone; defaults are left out, but for the seed.

    An option is named as the request's field, so that new ones need nothing here. Values are joined to their
    option where they begin with a dash.
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
    """The command that does this run alone, ready to paste."""
    return shlex.join(["iufbench", *arguments(request)])
