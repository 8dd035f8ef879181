"""Scores of new images, and the folder that holds them with their heat maps."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iufbench.data.decoding import Decoding
from iufbench.data.images import read_image
from iufbench.reporting.heatmaps import Scale, overlay, scale_of
from iufbench.reporting.store import Run
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import work_folder, write_bytes, write_csv, write_json, write_text

COLUMNS = ("image", "object", "score", "threshold", "decision")
TABLE, LINES, ABOUT, MAPS, OVERLAYS = "predictions.csv", "predictions.jsonl", "about.json", "maps", "overlays"


@dataclass(frozen=True)
class Prediction:
    """The score of one image.

    Attributes:
        image: The file.
        object: The object that was given, or the one whose memory the strategy chose; "" for neither.
        score: The image score, higher is more anomalous.
        threshold: A score above it is an alarm; None in a run without thresholds.
        map: Anomaly map, float32 [S, S], of the whole image.
    """

    image: Path
    object: str
    score: float
    threshold: float | None
    map: np.ndarray = field(repr=False, compare=False)

    @property
    def decision(self) -> str | None:
        """``defective`` or ``good``; None without a threshold."""
        if self.threshold is None:
            return None
        return "defective" if self.score > self.threshold else "good"

    def row(self) -> dict[str, Any]:
        """All fields except the map, named as in ``COLUMNS``."""
        return {name: getattr(self, name) for name in COLUMNS} | {"image": str(self.image)}


def as_json(row: dict[str, Any]) -> str:
    """A row as a line of JSON; None becomes null, and floats round-trip exactly."""
    return json.dumps(row, allow_nan=False)


def as_csv(cells: Iterator[Any] | tuple[Any, ...]) -> str:
    """A row as a line of CSV without line ending; None becomes empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def require_new(folder: Path) -> None:
    """Raise InputError if the folder exists: nothing is overwritten."""
    if os.path.lexists(folder):
        raise InputError(f"--out {folder} already exists: choose another folder or remove it")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``folder`` without an error.

    Raises InputError if ``folder`` exists, RunError if it cannot be written.
    """
    require_new(folder)
    try:
        with work_folder(folder) as work:
            yield work
            os.rename(work, folder)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; check space and permissions") from error


class PredictionFolder:
    """A folder with tables, maps and overlays of some images, which appears when it is complete.

    ``predictions.csv`` and ``predictions.jsonl`` have the rows with two more columns, the paths of
    ``maps/<k>_<name>.npy`` (float16 [S, S]) and ``overlays/<k>_<name>.png``; ``about.json`` describes their
    origin. The colours of an overlay are scaled by the test images of its object, or of all objects if it is
    unknown.
    """

    def __init__(self, folder: Path, run: Run, decoding: Decoding) -> None:
        self._folder, self._run, self._decoding = folder, run, decoding
        self._scales: dict[str, Scale] = {}
        self._rows: list[dict[str, Any]] = []
        self._work = folder

    @contextmanager
    def filling(self, about: dict[str, Any]) -> Iterator[PredictionFolder]:
        """Create the folder; its content becomes visible at the end, and never after an error."""
        with new_folder(self._folder) as self._work:
            for part in (MAPS, OVERLAYS):
                (self._work / part).mkdir(parents=True)
            yield self
            columns = (*COLUMNS, "map", "overlay")
            write_csv(self._work / TABLE, columns, [[row[c] for c in columns] for row in self._rows])
            write_text(self._work / LINES, "".join(f"{as_json(row)}\n" for row in self._rows))
            scales = {name or "any": scale._asdict() for name, scale in self._scales.items()}
            write_json(self._work / ABOUT, {**about, "images": len(self._rows), "scales": scales})

    def add(self, prediction: Prediction) -> None:
        """Write the map and the overlay of one image, and keep its row."""
        name = prediction.object
        if name not in self._scales:
            self._scales[name] = scale_of(self._run, [name] if name in self._run.objects else None)
        stem = f"{len(self._rows):05d}_{prediction.image.stem[:40]}"
        places = {"map": f"{MAPS}/{stem}.npy", "overlay": f"{OVERLAYS}/{stem}.png"}
        buffer = io.BytesIO()
        np.save(buffer, prediction.map.astype(np.float16))
        write_bytes(self._work / places["map"], buffer.getvalue())
        pixels = read_image(prediction.image, self._decoding)
        write_bytes(self._work / places["overlay"], overlay(pixels, prediction.map, self._scales[name]))
        self._rows.append(prediction.row() | places)
