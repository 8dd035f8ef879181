"""The row that every method has to beat: the base experience is learnt and nothing after it."""

from __future__ import annotations

from typing import Any

from iufbench.strategies.iuf import IUF


class Frozen(IUF):
    """IUF's network, trained on the base experience exactly as fine-tuning is, and never again."""

    def _before_training_exp(self, **kwargs: Any) -> None:
        super()._before_training_exp(**kwargs)
        if self._is_increment:
            self.train_epochs = 0
