"""UniAD without any protection against forgetting: You et al., NeurIPS 2022."""

from __future__ import annotations

from iufbench.learning.base import ReconstructionStrategy


class UniAD(ReconstructionStrategy):
    """UniAD's network, trained on one experience after another (the "UniAD" row of the papers)."""
