"""Evaluate the objects of a run's test stream, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from iufbench.engine.assembly import Parts
from iufbench.engine.sealing import untouched
from iufbench.evaluation.objects import EvaluationResult
from iufbench.support.progress import Progress


def evaluate_objects(
    parts: Parts,
    experience: int,
    seen: int,
    objects: Sequence[int],
    progress: Progress,
    label: str,
) -> EvaluationResult:
    """Evaluate objects after an experience.

    In a run with thresholds, the calibration images of trained objects are scored first. On a GPU, metrics
    that are computed on the CPU run in a thread while the next object is on the GPU.

    Args:
        parts: The parts of the run.
        experience: Index of the last trained experience, from 0.
        seen: Number of objects trained so far.
        objects: Indices of the objects to evaluate.
        progress: Shows a bar.
        label: Its label.

    Returns:
        All rows of the evaluation.
    """
    parts.evaluation.start(experience, seen, parts.strategy.clock.train_iterations)
    with (
        progress.bar(f"{label}: evaluating", len(objects), " objects") as bar,
        untouched(parts.strategy),
        parts.evaluation.one_behind() if overlaps(parts.strategy) else nullcontext(),
    ):
        for number in objects:
            if parts.evaluation.thresholds is not None and number < seen:
                parts.strategy.eval([parts.streams.calibration[number]])
                parts.evaluation.calibrate(number)
            parts.strategy.eval([parts.streams.test[number]], untrained=seen == 0)
            parts.evaluation.judge(number)
            bar.advance()
    return parts.evaluation.finish()


def overlaps(strategy: Any) -> bool:
    """Whether metrics are computed while the next object runs: on a CPU, both would share its cores."""
    return bool(strategy.device.type == "cuda")
