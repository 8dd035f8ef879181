"""Orthogonal low-rank increments on UniAD and on Dinomaly: our own entry.

Related: O-LoRA (Wang et al., EMNLP 2023 Findings) and HF-OLB (arXiv 2606.02042), which keep one adapter bank
per category in the orthogonal complement of the older ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from iufbench.learning.low_rank import Adapters, LowRankIncrements
from iufbench.strategies.dinomaly import Dinomaly, Mining


class OrthogonalLoRA(LowRankIncrements):
    """UniAD whose increments are low-rank and orthogonal to the old span."""


class DinomalyOrthogonalLoRA(LowRankIncrements, Dinomaly):
    """Dinomaly with the same increments."""

    @dataclass(frozen=True)
    class Options:
        dinomaly: Mining = field(default_factory=Mining)
        lora: Adapters = field(default_factory=Adapters)
