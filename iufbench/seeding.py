"""One run seed, several independent streams of randomness, each recorded in run.json."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 32-bit seed that depends on the run's seed and on what it is for, and on nothing else."""
    text = ":".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Seeds:
    """``initialisation`` of weights, ``order`` of training samples, ``training`` noise (jitter, dropout),
    ``memory`` (what a rehearsal buffer or coreset keeps)."""

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
    """Seed the global generators of Python, NumPy and torch: what ran before no longer matters."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
