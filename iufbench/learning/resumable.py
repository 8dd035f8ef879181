"""Resumable training: a learner declares its state and can be resumed exactly after any epoch."""

from __future__ import annotations

import iufbench.support.framework  # noqa: F401

from collections.abc import Iterator
from typing import Any, ClassVar

from avalanche.training.templates import SupervisedTemplate

from iufbench.support.seeding import random_states, set_random_states


class Resumable(SupervisedTemplate):
    """A strategy whose state can be saved and restored. Each name in ``carried`` and ``within`` refers to an
    attribute or settable property that holds tensors, numbers, text, or nested lists and dicts of them. A
    class lists its own names; those of its base classes are added."""

    # State besides the network that is carried from one experience to the next.
    carried: ClassVar[tuple[str, ...]] = ()
    # State that changes within an experience. Not needed for attributes that only ``_before_training_exp``
    # sets, because it runs again before the experience is resumed, nor for those that
    # ``_before_training_epoch`` sets, because state is saved at the end of epochs only.
    within: ClassVar[tuple[str, ...]] = ()

    scheduler: Any = None
    dataloader: Any
    _stop_training: bool
    _eval_streams: Any

    # Between experiences ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything the next experience depends on: the network, the clock, the ``carried`` attributes.

        The tensors are not copies: save or copy them before training continues.
        """
        return {
            "network": self.model.state_dict(),
            "memory": self._named("carried"),
            "clock": self._clock(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned; the network must already have the same structure."""
        self.model.load_state_dict(state["network"])
        self._set("carried", state["memory"])
        self.clock.__dict__.update(state["clock"])

    @classmethod
    def _names(cls, kind: str) -> list[str]:
        return list(dict.fromkeys(name for base in cls.__mro__ for name in vars(base).get(kind, ())))

    def _named(self, kind: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names(kind)}

    def _set(self, kind: str, values: dict[str, Any]) -> None:
        for name in self._names(kind):
            setattr(self, name, values[name])

    def _clock(self) -> dict[str, int]:
        """Avalanche's training counters; ``total_iterations`` also counts evaluation iterations."""
        return {name: n for name, n in vars(self.clock).items() if name.startswith("train")}

    # Within an experience ---------------------------------------------------------------------------

    def train_by_epoch(self, experience: Any, state: dict[str, Any] | None = None) -> Iterator[None]:
        """Train on an experience as ``train`` does, but yield after every epoch.

        ``state_within`` may be called whenever the generator is suspended.

        Args:
            experience: The experience to train on; there is no evaluation.
            state: The result of ``state_within`` in an earlier training on the same experience, to resume
                from. The learner must be in the state it had before that experience.
        """
        # Avalanche's ``train`` and ``_train_exp``, except that they can start later and yield.
        self.is_training, self._stop_training, self._eval_streams = True, False, []
        self.model.train()
        self.model.to(self.device)
        self._before_training()
        self.experience = experience
        self._before_training_exp()
        if state is not None:  # after the callbacks, which reset what is set here
            self._resume(state)
            state = None  # frees its tensors before the training
        while self.clock.train_exp_epochs < self.train_epochs:
            self._before_training_epoch()
            if self._stop_training:
                self._stop_training = False
                break
            self.training_epoch()
            self._after_training_epoch()
            yield
        self._after_training_exp()
        self._after_training()
        self._train_cleanup()

    def state_within(self) -> dict[str, Any]:
        """Everything the rest of the experience depends on at the end of an epoch, besides ``state()`` of the
        previous experience. The tensors are not copies."""
        return {
            "network": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "within": self._named("within"),
            "clock": self._clock(),
            "random": random_states(getattr(self.dataloader, "generator", None)),
        }

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._set("within", state["within"])
        self.clock.__dict__.update(state["clock"])
        set_random_states(state["random"], getattr(self.dataloader, "generator", None))
