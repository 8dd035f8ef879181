"""Run functions that train as a sweep does, and lose or hold their process in the second experience."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from iufbench.sweeps.worker import train

FOLDER = "VICTIMS_FOLDER"  # environment variable: where both leave and find their files


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


def held(request, progress, bases=()):
    """Runs wait until the file ``release`` is in FOLDER."""
    release = Path(os.environ[FOLDER]) / "release"

    def wait():
        while not release.exists():
            time.sleep(0.05)

    _at_the_second_experience(wait)
    train(request, progress, bases)
