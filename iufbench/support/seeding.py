"""Independent random seeds derived from the seed of a run, each recorded in run.json."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A 32-bit seed that depends only on the run's seed and on its purpose.

    >>> derive(0, "order") == derive(0, "order"), derive(0, "order") == derive(0, "memory")
    (True, False)
    """
    text = ":".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Seeds:
    """Seeds for the ``initialisation`` of weights, the ``order`` of training samples, the noise in
    ``training`` (jitter, dropout), and the selection of what a ``memory`` keeps (buffer, coreset)."""

    initialisation: int
    order: int
    training: int
    memory: int

    @classmethod
    def of(cls, seed: int) -> Seeds:
        return cls(**{name: derive(seed, name) for name in ("initialisation", "order", "training", "memory")})

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states(order: torch.Generator | None = None) -> dict[str, Any]:
    """The states of the global generators of Python, NumPy and torch, and of ``order``.

    They consist of tensors and plain values, so they can be saved in a checkpoint.
    """
    import torch

    numpy: Any = np.random.get_state(legacy=False)
    numpy["state"]["key"] = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "order": None if order is None else order.get_state(),
    }


def set_random_states(states: dict[str, Any], order: torch.Generator | None = None) -> None:
    """Restore the states of all generators returned by ``random_states``."""
    import torch

    random.setstate(states["python"])
    numpy = states["numpy"]
    key = numpy["state"]["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"]:
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    if order is not None:
        order.set_state(states["order"].cpu())
