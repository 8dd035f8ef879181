"""What lets a learner stop after any iteration and go on to the same numbers.

A learner names its state; the loop over batches is watched, because between two batches that state is whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from avalanche.training.templates import SupervisedTemplate

from iufbench.support.seeding import random_states, set_random_states


class Position(NamedTuple):
    """Where training stands in an experience: ``iteration`` of ``iterations`` done in ``epoch`` (from 0)."""

    epoch: int
    iteration: int
    iterations: int


class Resumable(SupervisedTemplate):
    """Names hold tensors, numbers, text, and lists and dicts of them, as attributes or as properties that can
    be set. A class names its own; those of its bases are added."""

    # What goes from one experience to the next beside the network.
    carried: ClassVar[tuple[str, ...]] = ()
    # What changes while an experience is trained. What ``_before_training_exp`` sets and nothing changes
    # afterwards needs no name: it is set again before the rest of the experience is trained.
    within: ClassVar[tuple[str, ...]] = ()

    scheduler: Any = None
    dataloader: Any
    _stop_training: bool
    # Called after every iteration, when ``state_within`` may be asked for.
    after_iteration: Callable[[], None] | None = None
    position = Position(0, 0, 0)

    _interrupted: dict[str, Any] | None = None
    _random_before_epoch: dict[str, Any] | None = None

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

    def state_within(self) -> dict[str, Any]:
        """All that the rest of the current experience depends on beside ``state()`` of the one before.

        To be asked for from ``after_iteration``. These are the live tensors, too.
        """
        return {
            "position": list(self.position),
            "network": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "within": self._named("within"),
            "clock": self._clock(),
            "random_before_epoch": self._random_before_epoch,
            "random": random_states(),
        }

    def resume_within(self, state: dict[str, Any]) -> None:
        """Let the next call of ``train`` go on where ``state_within`` was asked for.

        The learner must be as it was before that experience, and train on the same experience.
        """
        self._interrupted = state

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        # Avalanche's loop, but for where it begins and that its batches are watched.
        first = 0 if self._interrupted is None else self._interrupted["position"][0]
        for epoch in range(first, self.train_epochs):
            self._before_training_epoch(**kwargs)
            if self._stop_training:
                self._stop_training = False
                break
            batches = self.dataloader
            self.dataloader = WatchedBatches(self, epoch)
            self.training_epoch(**kwargs)
            self.dataloader = batches
            self._after_training_epoch(**kwargs)

    def _go_on(self, state: dict[str, Any]) -> None:
        # After all callbacks that come before an experience and an epoch: they reset what is set here.
        self.model.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._set("within", state["within"])
        self.clock.__dict__.update(state["clock"])
        set_random_states(state["random"])


class WatchedBatches:
    """The batches of one epoch; ``after_iteration`` is called when the loop asks for the next one.

    In the first epoch of a resumed learner, the batches that it has seen are drawn again in the same order
    and left out.
    """

    def __init__(self, learner: Resumable, epoch: int) -> None:
        self._learner, self._epoch, self._batches = learner, epoch, learner.dataloader

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        learner, done = self._learner, 0
        order = getattr(self._batches, "generator", None)
        interrupted, learner._interrupted = learner._interrupted, None
        if interrupted is not None:
            set_random_states(interrupted["random_before_epoch"], order)
        learner._random_before_epoch = random_states(order)
        batches = iter(self._batches)
        if interrupted is not None:
            done = interrupted["position"][1]
            deque(islice(batches, done), maxlen=0)
            learner._go_on(interrupted)
            interrupted = None  # its tensors need not live as long as the epoch
        for iteration, batch in enumerate(batches, start=done + 1):
            yield batch
            learner.position = Position(self._epoch, iteration, len(self))
            if learner.after_iteration is not None:
                learner.after_iteration()
