"""A run function that trains as a sweep does, and loses its process in the second experience."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from iufbench.sweeps.worker import train

FOLDER = "VICTIMS_FOLDER"  # environment variable: where a killed run leaves a mark


def _at_the_second_experience(act):
    """Call ``act`` after each iteration of its second epoch."""
    from iufbench.support.progress import TrainingBar

    call = TrainingBar.after_training_iteration

    def iterated(self, strategy, **kwargs):
        if strategy.experience.current_experience == 1 and strategy.clock.train_exp_epochs == 1:
            act()
        call(self, strategy, **kwargs)

    TrainingBar.after_training_iteration = iterated


def killed(request, progress, bases=()):
    """The first run in FOLDER loses its process; every later one trains to the end."""
    died = Path(os.environ[FOLDER]) / "died"

    def die():
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _at_the_second_experience(die)
    train(request, progress, bases)
