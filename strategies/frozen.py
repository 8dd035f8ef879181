"""The lower bound for every method: only the base experience is learnt."""

from __future__ import annotations

from typing import Any

from iufbench.strategies.iuf import IUF


class Frozen(IUF):
    """IUF's network, trained on the base experience as in fine-tuning, and frozen afterwards."""

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        if self._is_increment:
            self.train_epochs = 0
