"""A diagnosis, never a result: what selecting the best epoch on the test images would have reported.

Runs report the state at the end of each experience. Some published code instead evaluates the test images
after every epoch and keeps the best. ``--diagnose-selection`` measures the resulting bias, the
*optimism gap*. The states of epochs are saved during training and evaluated afterwards by a separate learner,
so that neither the training nor the data accessible to the strategy changes.
"""

from __future__ import annotations

import io
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iufbench.evaluation.rows import MetricRow
from iufbench.reporting.rundir import EPOCH_STATES, SELECTION, read_rows
from iufbench.support.errors import RunError
from iufbench.support.files import write_bytes, write_csv
from iufbench.support.progress import Progress

COLUMNS = ("experience", "epoch", "reported", "object", "level", "auroc")


class EpochStates:
    """Saves the state of every ``every``-th epoch of one experience; none if it is None.

    ``epochs_done``: completed epochs of a resumed experience, whose states have already been saved.
    """

    def __init__(self, run: Path, every: int | None, epochs_done: int = 0) -> None:
        self._folder, self._every = run / EPOCH_STATES, every
        if every is not None and not epochs_done:
            shutil.rmtree(self._folder, ignore_errors=True)  # of an experience that is restarted

    def after_epoch(self, strategy: Any) -> None:
        import torch

        epoch = strategy.clock.train_exp_epochs
        if self._every is not None and epoch % self._every == 0:
            buffer = io.BytesIO()
            torch.save(strategy.state(), buffer)
            write_bytes(self._folder / f"{epoch}.pt", buffer.getvalue())


def diagnose(
    plan: Any, parts: Any, experience: int, seen: int, reported: list[MetricRow], progress: Progress
) -> None:
    """Evaluate the states saved in ``experience`` and add them to ``selection.csv``.

    ``reported``: the metrics that the run itself records. Seeds the global generators.
    """
    import torch

    from iufbench.engine.assembly import build_strategy
    from iufbench.engine.evaluate import evaluate_objects
    from iufbench.evaluation.objects import ObjectEvaluation

    device = parts.strategy.device
    evaluation = ObjectEvaluation(parts.evaluation.tests, parts.evaluation.score)
    judge = build_strategy(plan, parts.backbone, device, evaluation.maps)
    apart = replace(parts, strategy=judge, evaluation=evaluation)
    folder = plan.path / EPOCH_STATES
    epochs = sorted(int(path.stem) for path in folder.glob("*.pt"))
    rows: list[tuple[Any, ...]] = [(experience, "", 1, *row) for row in _aurocs(reported)]
    for epoch in epochs:
        state = torch.load(folder / f"{epoch}.pt", map_location=device, weights_only=True)
        judge.restore(state)
        label = f"diagnosis, experience {experience + 1}, epoch {epoch}"
        found = evaluate_objects(apart, experience, seen, range(seen), progress, label)
        rows += [(experience, epoch, 0, *row) for row in _aurocs(found.metrics)]
    path = plan.path / SELECTION
    old = [list(row.values()) for row in read_rows(path, COLUMNS)] if path.exists() else []
    write_csv(path, COLUMNS, [*(row for row in old if int(row[0]) < experience), *rows])
    shutil.rmtree(folder, ignore_errors=True)


def _aurocs(rows: list[MetricRow]) -> list[tuple[str, str, float]]:
    return [(row.object, row.level, row.value) for row in rows if row.metric == "auroc" and row.seen]


class Optimism(NamedTuple):
    """Mean over experiences of the mean AUROC of the objects seen: as reported, and for the best epoch."""

    reported: float
    best: float
    experiences: int

    @property
    def gap(self) -> float:
        """How much better the best epoch on test images looks; never negative."""
        return self.best - self.reported


def optimism(run: Path) -> dict[str, Optimism]:
    """level -> optimism of a diagnosed run.

    For every experience, the best of its epochs and the reported state is chosen for each level separately;
    training always continued from the last epoch. NaN if the AUROC of an object is undefined. Raises RunError
    if there is no diagnosis or its file is corrupted.
    """
    path = run / SELECTION
    if not path.exists():
        raise RunError(f"{run} has no {SELECTION}: run it with --diagnose-selection")
    values: dict[str, dict[int, dict[str, list[float]]]] = {}
    for number, row in enumerate(read_rows(path, COLUMNS), start=2):
        state = "reported" if row["reported"] == "1" else row["epoch"]
        by_state = values.setdefault(row["level"], {}).setdefault(int(row["experience"]), {})
        by_state.setdefault(state, []).append(_auroc(row["auroc"], f"{path}, row {number}"))
    result = {}
    for level, experiences in values.items():
        for experience, states in experiences.items():
            if "reported" not in states:
                raise RunError(f"{path}: corrupted, no reported {level} AUROC in experience {experience}")
        means = [{s: float(np.mean(v)) for s, v in states.items()} for states in experiences.values()]
        reported = float(np.mean([m["reported"] for m in means]))
        best = float(np.mean([np.max(list(m.values())) for m in means]))
        result[level] = Optimism(reported, best, len(means))
    return result


def _auroc(text: str, where: str) -> float:
    """The number in a cell; NaN, for undefined, if it is empty."""
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.inf
    if not (0 <= value <= 1 or math.isnan(value)):
        raise RunError(f"{where}: AUROC is {text[:40]!r}, not a number from 0 to 1")
    return value


def describe_optimism(run: Path) -> str:
    """The diagnosis as text, clearly marked as such."""
    lines = ["DIAGNOSIS, not a result: the best epoch on the test images would have been reported as"]
    for level, found in optimism(run).items():
        if math.isnan(found.gap):
            lines.append(f"  {level} AUROC: undefined, because it is undefined for an object")
            continue
        lines.append(
            f"  {level} AUROC, mean over {found.experiences} experiences: {found.best:.4f} instead of "
            f"{found.reported:.4f} (optimism gap {found.gap:.4f})"
        )
    return "\n".join(lines)
