"""What lets a learner stop after any epoch and be resumed to the same numbers: it names its state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from avalanche.training.templates import SupervisedTemplate

from iufbench.support.seeding import random_states, set_random_states


class Resumable(SupervisedTemplate):
    """Names hold tensors, numbers, text, and lists and dicts of them, as attributes or as properties that can
    be set. A class names its own; those of its bases are added."""

    # What goes from one experience to the next beside the network.
    carried: ClassVar[tuple[str, ...]] = ()
    # What changes while an experience is trained. What ``_before_training_exp`` sets and nothing changes
    # afterwards needs no name: it is set again before the rest of the experience is trained. Nor does what
    # ``_before_training_epoch`` sets: there is state to resume from at the end of epochs only.
    within: ClassVar[tuple[str, ...]] = ()

    scheduler: Any = None
    dataloader: Any
    _stop_training: bool
    _eval_streams: Any

    # Between experiences ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that the next experience depends on: the network, the clock, the ``carried`` attributes.

        These are the live tensors: save or copy them before training goes on.
        """
        return {
            "network": self.model.state_dict(),
            "memory": self._named("carried"),
            "clock": self._clock(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what ``state`` returned; the network must already have the same shape."""
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
        """Avalanche's counters of training; ``total_iterations`` also counts those of evaluations."""
        return {name: n for name, n in vars(self.clock).items() if name.startswith("train")}

    # Within an experience ---------------------------------------------------------------------------

    def train_by_epoch(self, experience: Any, state: dict[str, Any] | None = None) -> Iterator[None]:
        """``train(experience)`` that pauses after every epoch, when ``state_within`` may be asked for.

        Args:
            experience: what to train on; there is no evaluation.
            state: what ``state_within`` returned in an earlier training on the same experience, which is
                resumed from there. The learner must be as it was before that experience.
        """
        # Avalanche's ``train`` and ``_train_exp``, but for where they begin and that they pause.
        self.is_training, self._stop_training, self._eval_streams = True, False, []
        self.model.train()
        self.model.to(self.device)
        self._before_training()
        self.experience = experience
        self._before_training_exp()
        if state is not None:  # after the callbacks, which reset what is set here
            self._resume(state)
            state = None  # its tensors need not live as long as the training
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
        """At the end of an epoch, all that the rest of the experience depends on beside ``state()`` of the
        one before. These are the live tensors, too."""
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
