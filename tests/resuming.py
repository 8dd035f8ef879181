"""Runs that are interrupted at a given moment, and what must be equal afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from iufbench.engine.assembly import Parts, build_strategy
from iufbench.evaluation.objects import ObjectEvaluation
from iufbench.reporting.store import Run
from iufbench.support.progress import TrainingBar

TABLES = ("metrics.csv", "scores.csv.gz", "train_log.csv")
COSTS = ("bytes_kept", "replayed_images", "trained_images")


class Killed(BaseException):
    """Simulates a kill: no cleanup code may be relied on."""


def reassembly(parts: Parts) -> Callable[..., Parts]:
    """Replaces ``runner.assemble``: the images of ``parts`` again, and an untrained strategy."""

    def assemble(plan, device, progress):
        evaluation = ObjectEvaluation(parts.evaluation.tests, plan.recipe.score)
        strategy = build_strategy(plan, parts.backbone, device, evaluation.maps)
        return Parts(parts.streams, strategy, evaluation, parts.backbone, parts.dataset)

    return assemble


@contextmanager
def interruption(
    monkeypatch: Any, experience: int, epoch: int, iteration: int = 1, signal_: int | None = None
) -> Iterator:
    """Raise a signal in this process, or Killed, after ``iteration`` (from 1) of ``epoch`` (from 1)."""
    call = TrainingBar.after_training_iteration

    def interrupted(self, strategy, **kwargs):
        clock = strategy.clock
        place = strategy.experience.current_experience, clock.train_exp_epochs + 1
        if (*place, clock.train_epoch_iterations + 1) == (experience, epoch, iteration):
            if signal_ is None:
                raise Killed
            os.kill(os.getpid(), signal_)
        call(self, strategy, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBar, "after_training_iteration", interrupted)
        yield


def assert_same_run(one: Run, other: Run) -> None:
    """Tables, costs and weights are bit-identical, files are the same, and no temporary file is left."""
    for name in TABLES:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    for cost in COSTS:
        assert one.info["costs"][cost] == other.info["costs"][cost], cost
    assert files(one.path) == files(other.path)
    for path in sorted((one.path / "checkpoints").glob("*.pt")):
        again = torch.load(other.path / "checkpoints" / path.name, weights_only=True)
        assert same(torch.load(path, weights_only=True), again), path.name
    vouched = json.loads((other.path / "checkpoints/manifest.json").read_text())["files"]
    assert {p.name for p in (other.path / "checkpoints").glob("*.pt")} == set(vouched)


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def same(one: Any, other: Any) -> bool:
    """Bit-identical nested values."""
    if isinstance(one, torch.Tensor):
        bits = [t.contiguous().cpu().numpy().tobytes() for t in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and bits[0] == bits[1]
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)
