"""A run so small that every registered strategy can be trained in a second or two."""

from __future__ import annotations

from pathlib import Path

import torch
from filelock import FileLock

from iufbench.cards.request import Request
from iufbench.cards.strategies import load_strategy
from iufbench.engine.assembly import Parts, assemble
from iufbench.engine.plan import Plan, prepare
from iufbench.engine.runner import execute
from iufbench.reporting.store import Run, load_run
from iufbench.support.progress import Progress

SETTINGS = (
    "image_size=64",
    "network.hidden=16",
    "network.heads=2",
    "network.feedforward=16",
    "network.encoder_layers=2",
    "network.decoder_layers=2",
    "base.epochs=2",
    "base.batch_size=4",
    "increment.epochs=2",
    "increment.batch_size=4",
)


# Blocks of single methods: a small classifier image, and memories that do not hold everything they see.
BLOCKS = {
    "oasa": ("oasa.resolution=8",),
    "gcr": ("gcr.prototypes=8",),
    "task": ("task.key=8", "task.knowledge=12"),
    "positions": ("positions.fewest=2",),
    "lora": ("lora.rank=2", "lora.energy=0.5"),
}


def tiny_settings(strategy: str) -> tuple[str, ...]:
    """SETTINGS, and those for the card's own BLOCKS."""
    content = load_strategy(strategy).content
    own = [setting for block, settings in BLOCKS.items() if block in content for setting in settings]
    if content.get("coreset", {}).get("ratio") == 1:
        own.append("coreset.budget_bytes=40000")
    return (*SETTINGS, *own)


def tiny_plan(strategy: str, data: Path, results: Path, settings: tuple[str, ...] = (), **request) -> Plan:
    """Two objects, then one more, with real EfficientNet-Lite0 weights at 64 px."""
    defaults = {"protocol": "visa_2_1", "data_root": data, "device": "cpu", "threads": 1}
    full = Request(
        strategy=strategy,
        results=results,
        settings=(*tiny_settings(strategy), *settings),
        **{**defaults, **request},
    )
    return prepare(full, progress=False)


def tiny_run(
    strategy: str,
    data: Path,
    results: Path,
    settings: tuple[str, ...] = (),
    checkpoint_epochs: int | None = None,
    **request,
) -> Run:
    """Train and evaluate ``tiny_plan``; the run loaded from its directory."""
    plan = tiny_plan(strategy, data, results, settings, **request)
    return load_run(execute(plan, Progress(-1), checkpoint_epochs=checkpoint_epochs))


def finished(strategy: str, data: Path, folder: Path, protocol: str) -> Run:
    """A ``tiny_run`` in a folder that processes share: the first trains, the others find it complete."""
    folder.mkdir(exist_ok=True)
    with FileLock(folder / f"{strategy}.lock"):
        return tiny_run(strategy, data, folder / strategy, protocol=protocol)


def assembled(strategy: str, data: Path, results: Path, **request) -> tuple[Plan, Parts]:
    """``tiny_plan`` with weights and images loaded and the strategy built, before any training."""
    plan = tiny_plan(strategy, data, results, **request)
    torch.set_num_threads(1)
    return plan, assemble(plan, torch.device(plan.request.device), Progress(-1))
