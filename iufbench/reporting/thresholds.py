"""The calibration scores of a run, its thresholds, and what one threshold for all objects would do."""

from __future__ import annotations

import math
import os
from pathlib import Path

from iufbench.evaluation.rows import CalibrationRow
from iufbench.evaluation.thresholds import (
    Thresholds,
    by_object,
    frozen_thresholds,
    image_values,
    image_values_at,
    thresholds_of,
)
from iufbench.metrics.thresholds import PIXEL_RULE, best_f1_threshold, read_rule
from iufbench.reporting.measured import Scores
from iufbench.reporting.record import ObjectThresholds, RunRecord, ThresholdRecord
from iufbench.reporting.rundir import CALIBRATION, CALIBRATION_COLUMNS, table_rows
from iufbench.support.errors import InputError, RunError

MAX_ROWS = 1_000_000  # of an untrusted file


def read_calibration(run: Path) -> list[list[CalibrationRow]]:
    """Read ``calibration.csv.gz`` of a run directory: one list of rows per experience, empty without the
    file.

    Raises RunError with the row if the file is corrupted.
    """
    path = run / CALIBRATION
    if not os.path.lexists(path):
        return []
    found: list[list[CalibrationRow]] = []
    number = 1
    chunks = table_rows(path, CALIBRATION_COLUMNS)
    next(chunks)
    for rows in chunks:
        for experience, name, image, *texts in rows:
            number += 1
            try:
                values = list(map(float, texts))
            except ValueError as error:
                raise RunError(f"{path}, row {number}: {str(error)[:100]}") from error
            if not all(map(math.isfinite, values)):
                raise RunError(f"{path}, row {number}: scores must be finite")
            t = int(experience)
            if t not in (len(found) - 1, len(found)) or number > MAX_ROWS:
                raise RunError(f"{path}, row {number}: experience {t} comes after {len(found) - 1}")
            if t == len(found):
                found.append([])
            found[t].append(CalibrationRow(name, image, *values))
    return found


def threshold_record(run: Path, rule: str, share: float) -> ThresholdRecord:
    """The thresholds of a run directory whose experiences have all been evaluated, by a rule as typed.

    Raises RunError if ``calibration.csv.gz`` is missing or corrupted.
    """
    experiences = read_calibration(run)
    if not experiences:
        raise RunError(f"{run / CALIBRATION} is missing: thresholds need the scores of calibration images")
    parsed = read_rule(rule)
    frozen = frozen_thresholds(experiences, parsed)
    last = by_object(experiences[-1])
    own = {name: thresholds_of(rows, parsed) for name, rows in last.items()}
    pooled = thresholds_of(experiences[-1], parsed)
    return ThresholdRecord(
        rule=str(parsed),
        pixel_rule=str(PIXEL_RULE),
        share=share,
        objects={n: _of_object(len(rows), frozen[n], own[n]) for n, rows in last.items()},
        pooled_image=_number(pooled.image),
        pooled_pixel=_number(pooled.pixel),
    )


def stored_threshold(run: RunRecord, name: str, kind: str | None, pixel: bool = False) -> float | None:
    """The threshold of an object, as stored in a run.

    Args:
        run: The record of a finished run.
        name: The object; "" for an unknown one: the threshold pooled over all objects.
        kind: ``frozen`` (right after the object was learnt) or ``own`` (after the last experience); None:
            ``frozen``, or no threshold in a run without thresholds.
        pixel: The threshold for pixels of the anomaly map instead of the one for image scores.

    Returns:
        The threshold; None if the run has none for the object.

    Raises:
        InputError: ``kind`` is given, but the run has no thresholds.
    """
    record = run.thresholds
    if record is None:
        if kind is not None:
            raise InputError(
                f"--threshold {kind}: {run.id} has no thresholds; they come from a run with --threshold "
                "'quantile 0.95'"
            )
        return None
    if not name:
        return record.pooled_pixel if pixel else record.pooled_image
    found = record.objects.get(name)
    if found is None:
        return None
    if pixel:
        return found.own_pixel if kind == "own" else found.frozen_pixel
    return found.own_image if kind == "own" else found.frozen_image


def image_values_at_thresholds(
    run: Path, rule: str, scores: Scores
) -> dict[tuple[int, str], dict[str, float]]:
    """Image metrics (name -> value) at operating points, for every experience and object.

    Raises RunError if ``calibration.csv.gz`` is corrupted.
    """
    parsed, experiences = read_rule(rule), read_calibration(run)
    frozen = frozen_thresholds(experiences, parsed)
    own = {
        (t, name): thresholds_of(rows, parsed).image
        for t, found in enumerate(experiences)
        for name, rows in by_object(found).items()
    }
    oracle: dict[str, float] = {}
    values = {}
    for t, name, labels, numbers in sorted(scores.by_group(), key=lambda group: group[0]):
        found = image_values(labels, numbers)
        if (t, name) in own:
            best = oracle.setdefault(name, best_f1_threshold(labels, numbers))
            found |= image_values_at(labels, numbers, frozen[name].image, own[t, name], best)
        values[t, name] = found
    return values


def _of_object(images: int, frozen: Thresholds, own: Thresholds) -> ObjectThresholds:
    return ObjectThresholds(images, *map(_number, (*frozen, *own)))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
