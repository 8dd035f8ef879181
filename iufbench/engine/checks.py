"""What a run needs before it starts: a place for results, data to measure on, weights, a usable learner."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from iufbench.cards.protocols import Protocol
from iufbench.cards.request import Request
from iufbench.cards.strategies import WEIGHT_SOURCES, Recipe, StrategyCard
from iufbench.data.samples import DataSet
from iufbench.support.errors import InputError
from iufbench.support.fields import suggest

STEPS = ("auto", "eager", "graph")
NEEDED_BYTES = 64 * 2**20  # metrics, scores, log and figures of a long run take a few MiB


def check_results_folder(results: Path) -> None:
    """Raise InputError if a run could not be written to the results folder."""
    folder = results.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"--results {results}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"--results {results}: no permission to write in {folder}")
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise InputError(
            f"--results {results}: only {free / 2**20:.0f} MiB free in {folder}, "
            f"a run needs {NEEDED_BYTES >> 20} MiB"
        )


def check_results_outside(results: Path, root: Path) -> None:
    """Without a card every folder in the data root is an object: a results folder would be read as one."""
    if results.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"--results {results} is inside the data root {root}, where every folder is an object: "
            "choose a folder outside"
        )


def check_data(dataset: DataSet, protocol: Protocol, hint: str = "") -> None:
    """AUROC needs normal and defective test images; raise InputError, with a hint, if no object has both."""
    kinds = {(s.object, s.label) for s in dataset.select("test", protocol.objects)}
    if not any({(name, 0), (name, 1)} <= kinds for name in protocol.objects):
        raise InputError(
            f"{dataset.root}: no object has both good and defective test images, so nothing can be "
            f"measured{hint}"
        )


def check_weights(weights: str) -> None:
    if weights not in WEIGHT_SOURCES and not Path(weights).is_file():
        hint = suggest(weights, WEIGHT_SOURCES)
        if re.match(r"[a-z]+:/", weights):
            hint = ": download it first and give the file"
        what = "it is not a regular file" if Path(weights).exists() else "there is no such file"
        raise InputError(
            f"backbone.weights '{weights}': {what}{hint} (a file, or {', '.join(WEIGHT_SOURCES)})"
        )


def check_learner(learner: Any, recipe: Recipe, card: StrategyCard) -> None:
    from avalanche.training.templates.base import BaseTemplate

    if not (isinstance(learner, type) and issubclass(learner, BaseTemplate)):
        raise InputError(f"{card.path}: learner '{recipe.learner}' is not an Avalanche strategy class")
    missing = [n for n in ("Options", "uses", "guide_size", "anomaly_maps") if not hasattr(learner, n)]
    if missing:
        raise InputError(
            f"{card.path}: learner '{recipe.learner}' has no '{missing[0]}'; derive it from "
            "iufbench.learning.base:ReconstructionStrategy"
        )


def check_arithmetic(request: Request, learner: Any) -> None:
    """Reject options about training arithmetic for a learner that trains no network."""
    asked = [
        (f"--precision {request.precision}", request.precision not in ("auto", "fp32")),
        ("--compile", request.compile),
        (f"--step {request.step}", request.step not in ("auto", "eager")),
    ]
    for option, given in asked:
        if given and not learner.uses.gradients:
            raise InputError(f"{option}: {request.strategy} trains no network; leave the option out")


def check_step(request: Request, learner: Any, recipe: Recipe) -> None:
    """Raise InputError if the iteration cannot be captured, as far as is known without data."""
    if request.step not in STEPS:
        raise InputError(f"--step {request.step}: unknown (allowed: {', '.join(STEPS)})")
    if request.step != "graph":
        return
    from iufbench.support.device import choose_device

    if choose_device(request.device).type != "cuda":
        raise InputError("--step graph: CUDA graphs need a CUDA device; leave the option out on the CPU")
    from iufbench.learning.step import why_recipe_eager

    reason = learner.not_captured or why_recipe_eager(recipe)
    if reason is not None:
        raise InputError(f"--step graph: {request.strategy} cannot: {reason}; use --step auto")
