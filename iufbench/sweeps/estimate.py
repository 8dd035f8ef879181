"""Estimates the cost of a sweep (time, memory, disk) from finished runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from iufbench.reporting.record import INFO, RunRecord, read_record
from iufbench.support.errors import RunError
from iufbench.sweeps.runs import PlannedRun

DEFAULT_MEMORY_MB = 2048.0  # without a finished run or a value on the card; the quick preset takes 1 GB
MEASURED = ("the same run with other seeds or orders", "the same strategy", "other strategies")


@dataclass(frozen=True)
class Finished:
    """Costs of a finished run: total seconds, peak MiB, bytes on disk."""

    kind: tuple[str, str, str, str]
    preset: str
    seconds: float
    trained_images: int
    memory_mb: float
    bytes: int


@dataclass
class Estimate:
    """Expected costs of a run; ``seconds`` is None without a comparable finished run."""

    seconds: float | None = None
    basis: str = "nothing measured"
    memory_mb: float = DEFAULT_MEMORY_MB
    bytes: int | None = None


@dataclass
class Costs:
    """Costs of all finished runs; estimates use the most similar ones."""

    finished: list[Finished] = field(default_factory=list)
    _known: dict[tuple[Any, ...], list[Finished]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for one in self.finished:
            for key in _keys(one.kind, one.preset):
                self._known.setdefault(key, []).append(one)

    def of(self, run: PlannedRun) -> Estimate:
        """Estimate a run by the mean over the same recipe and protocol, else in proportion to its images."""
        for rank, (key, basis) in enumerate(zip(_keys(run.kind, run.preset), MEASURED)):
            known = self._known.get(key, [])
            scalable = known if rank == 0 else [f for f in known if f.trained_images]
            if not scalable:
                continue
            if rank == 0:
                seconds = mean(f.seconds for f in scalable)
            else:
                shown = sum(f.trained_images for f in scalable)
                seconds = run.trained_images * sum(f.seconds for f in scalable) / shown
            memory = max(f.memory_mb for f in scalable) or DEFAULT_MEMORY_MB
            return Estimate(seconds, basis, memory, round(mean(f.bytes for f in scalable)))
        return Estimate(memory_mb=run.resources.memory_mb or DEFAULT_MEMORY_MB)


def _keys(kind: tuple[str, str, str, str], preset: str) -> list[tuple[Any, ...]]:
    dataset, _, strategy, _ = kind
    return [kind, (dataset, strategy, preset), (dataset, preset)]


def measured_costs(results: Path) -> Costs:
    """The costs of all finished runs below ``results``; unreadable ones are skipped."""
    # a run with a reused base took less time
    usual = [(p, r) for p, r in readable_records(results) if r.complete and r.shared_base is None]
    return Costs([_finished(path, record) for path, record in usual])


def readable_records(results: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Every run directory below ``results`` with its record, unless that cannot be read."""
    for folder, folders, files in os.walk(results / "runs"):
        if INFO not in files:
            continue
        folders.clear()
        with suppress(RunError):
            yield Path(folder), read_record(Path(folder))


def _finished(path: Path, record: RunRecord) -> Finished:
    return Finished(
        kind=(
            record.dataset.name,
            record.protocol.id.partition("+")[0],
            record.strategy.name,
            record.recipe_hash,
        ),
        preset=record.preset or "",
        seconds=record.seconds.total,
        trained_images=sum(record.costs.trained_images),
        memory_mb=record.costs.peak_memory_mb or 0.0,
        bytes=sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
    )


def describe(runs: Sequence[PlannedRun], costs: Costs, jobs: int, free_bytes: int) -> str:
    """Describe the hours and disk space that ``runs`` (the unfinished ones) need."""
    estimates = [costs.of(run) for run in runs]
    known = [e for e in estimates if e.seconds is not None]
    lines = []
    if known:
        hours = sum(e.seconds for e in known if e.seconds is not None) / 3600
        lines.append(
            f"time        about {hours:.2g} h in total, {hours / jobs:.2g} h with {jobs} in parallel"
        )
        for basis in MEASURED:
            count = sum(e.basis == basis for e in known)
            if count:
                lines.append(f"            {count} estimated from {basis}")
    unknown = len(runs) - len(known)
    if unknown:
        lines.append(
            f"{'            ' if known else 'time        '}{unknown} cannot be estimated: no finished run "
            "of this data set and preset"
        )
    sizes = [e.bytes for e in estimates if e.bytes is not None]
    if sizes:
        need = sum(sizes) * len(runs) / len(sizes)
        lines.append(f"disk        about {size(need)}, {size(free_bytes)} free")
        if need > free_bytes:
            lines.append("            NOT ENOUGH: choose a --results folder with more free space")
    else:
        lines.append(f"disk        not measured yet, {size(free_bytes)} free")
    return "\n".join(lines)


def size(number: float) -> str:
    """A number of bytes as text, such as ``3 MiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
