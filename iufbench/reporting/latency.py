"""Reads and writes ``latency.json`` of a run directory: the time per image (``iufbench bench --latency``)."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from iufbench.support.errors import RunError
from iufbench.support.files import read_json, write_json

FILE = "latency.json"
FORMAT, MAX_BYTES = 1, 2**20


@dataclass(frozen=True)
class Times:
    """Milliseconds for one image: median and 95 % quantile of the timed calls."""

    median: float
    p95: float


@dataclass(frozen=True)
class Point:
    """Times after ``objects`` objects have been learnt: the stages of one image, and their sum."""

    objects: int
    decode: Times
    backbone: Times
    learner: Times
    total: Times


@dataclass(frozen=True)
class Latency:
    """Latency of batches of one image, on ``device`` with ``threads`` CPU threads.

    ``image``: the decoded image; ``flops``: floating-point operations per image by stage (matrix products,
    convolutions and attention; a multiply-add counts as two); ``energy_j``: joules per image, None with the
    reason in ``energy``.
    """

    device: str
    threads: int
    image: str
    warm_up: int
    repeats: int
    points: list[Point]
    flops: dict[str, int]
    energy_j: float | None
    energy: str
    measured: str
    iufbench: str


def write_latency(run: Path, found: Latency) -> Path:
    """Store a measurement in a run directory; replaces an earlier one."""
    return write_json(run / FILE, {"format": FORMAT, **dataclasses.asdict(found)})


def read_latency(run: Path) -> Latency | None:
    """Read the measurement in a run directory; None if there is none. Raises RunError if the file is
    corrupted.
    """
    path = run / FILE
    if not os.path.lexists(path):
        return None
    content = read_json(path, MAX_BYTES)
    try:
        found = msgspec.convert({k: v for k, v in content.items() if k != "format"}, Latency)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise RunError(f"{path}: {error}") from error
    if content.get("format") != FORMAT or not found.points:
        raise RunError(f"{path}: not a measurement in this version's format; measure again")
    return found
