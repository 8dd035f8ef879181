"""Which of Avalanche's stock plugins work with the strategies here, and what to use instead of the others.

Most of them are written for classification: they need a cross-entropy, logits, labels or class means, whereas
the network's output here is a reconstruction. Tested with avalanche-lib 0.6.0.
"""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

from dataclasses import dataclass
from typing import Any

from avalanche.training.plugins import LRSchedulerPlugin

from iufbench.support.errors import InputError


@dataclass(frozen=True)
class Stock:
    """Whether a plugin ``works``, equivalent strategies (``instead``), and the reason (``why``)."""

    works: bool
    instead: tuple[str, ...] = ()
    why: str = ""


def _no(why: str, *instead: str) -> Stock:
    return Stock(False, instead, why)


_CLASSES = "needs the logits of a classifier"
_SAMPLES = "splits the mini-batch by classes"
_MEANS = "needs a nearest-mean classifier"
_OWN_LOADER = "has no effect: the strategy's batches do not come from its data"

STOCK: dict[str, Stock] = {
    "LRSchedulerPlugin": Stock(True, why="replaces the card's schedule"),
    "EarlyStoppingPlugin": Stock(True, why="on any value of the evaluator; needs `eval_every`"),
    "ReplayPlugin": Stock(True, why="stores features; half of each batch are old images"),
    "FromScratchTrainingPlugin": Stock(True, why="every experience starts from the initial weights"),
    "SynapticIntelligencePlugin": _no("has no effect on the CPU: it keeps views of live weights", "si"),
    "LwFPlugin": _no("distils class scores", "lwf"),
    "EWCPlugin": _no("takes the gradient of a cross-entropy", "ewc", "ewc_online"),
    "RWalkPlugin": _no("takes the gradient of a cross-entropy", "ewc", "si"),
    "MASPlugin": _no("takes the norm of class scores", "mas"),
    "AGEMPlugin": _no("takes the gradient of a cross-entropy", "agem"),
    "GEMPlugin": _no("takes the gradient of a cross-entropy", "agem", "gpm"),
    "GDumbPlugin": _no(_OWN_LOADER, "replay"),
    "MIRPlugin": _no("has no effect: the strategy's batches do not come from it", "replay"),
    "RARPlugin": _no("traces the network and attacks class scores", "replay"),
    "GSS_greedyPlugin": _no(_SAMPLES, "replay"),
    "CoPEPlugin": _no("learns class prototypes", "replay"),
    "BiCPlugin": _no("corrects the bias of class scores", "replay"),
    "GenerativeReplayPlugin": _no("needs a generator of images", "replay"),
    "TrainGeneratorAfterExpPlugin": _no("needs a generator of images", "replay"),
    "FeatureDistillationPlugin": _no("compares the features of a classifier", "lwf", "der"),
    "LFLPlugin": _no("compares the features of a classifier", "lwf"),
    "CWRStarPlugin": _no(_CLASSES),
    "CurrentDataNCMUpdate": _no(_MEANS),
    "MemoryNCMUpdate": _no(_MEANS),
    "NCMOracle": _no(_MEANS),
    "CurrentDataFeCAMUpdate": _no(_MEANS),
    "MemoryFeCAMUpdate": _no(_MEANS),
    "FeCAMOracle": _no(_MEANS),
}


def check_plugins(strategy: Any) -> None:
    """Reject attached stock plugins that do not work; classes derived from stock plugins are not checked.

    Args:
        strategy: The strategy whose ``plugins`` are checked.

    Raises:
        InputError: A plugin does not work; the message says what to use instead.
    """
    for plugin in strategy.plugins:
        kind = type(plugin)
        known = STOCK.get(kind.__name__)
        if known is None or not kind.__module__.startswith("avalanche."):
            continue
        if not known.works:
            use = " or ".join(f"'{name}'" for name in known.instead)
            hint = f"use the strategy {use}" if use else "leave it out"
            raise InputError(f"{kind.__name__} does not work on reconstructions ({known.why}): {hint}")
        if not strategy.uses.gradients:
            raise InputError(
                f"{kind.__name__}: {type(strategy).__name__} trains no network; leave the plugin out"
            )


def schedules(strategy: Any) -> list[Any]:
    """The attached learning rate schedulers. Raises InputError for one with a different optimiser."""
    found = [plugin.scheduler for plugin in strategy.plugins if isinstance(plugin, LRSchedulerPlugin)]
    for scheduler in found:
        if scheduler.optimizer is not strategy.optimizer:
            raise InputError("LRSchedulerPlugin: build its scheduler on strategy.optimizer, not on another")
    return found


def table() -> str:
    """The table of docs/avalanche.md: every stock plugin, whether it works, and why not."""
    rows = ["| plugin | works | instead | remark |", "|---|---|---|---|"]
    for name, stock in STOCK.items():
        instead = ", ".join(f"`{n}`" for n in stock.instead) or "–"
        rows.append(f"| `{name}` | {'yes' if stock.works else 'no'} | {instead} | {stock.why} |")
    return "\n".join(rows)
