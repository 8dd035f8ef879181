"""Which results may share a table: those on the same data, scored by equivalent code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from iufbench.reporting.store import Run

World = tuple[str, ...]


def worlds(runs: Sequence[Run]) -> dict[str, World]:
    """Run id -> what distinguishes the run from others on a data set of that name; () for nothing.

    Runs on a subset of the objects are always separate (``4 of 15 objects``). The fingerprint of the data is
    added if runs on the same objects have several, the version of the scores and the size of the maps if runs
    on a data set do, a hash of the objects if runs of a protocol do.
    """
    prints, versions, sizes, objects = _fingerprints(runs), _versions(runs), _map_sizes(runs), _objects(runs)
    found = {}
    for run in runs:
        data = run.record.dataset
        labels = [data.coverage] if data.coverage else []
        if len({fingerprint for fingerprint, _ in prints[_material(run)]}) > 1:
            labels.append(f"data {data.fingerprint[:8]}")
        if len({orientation for _, orientation in prints[_material(run)]}) > 1:
            labels.append(_exif(data.orientation))
        if len(versions[data.name]) > 1:
            labels.append(f"scores version {run.record.scores_version}")
        if len(sizes[data.name]) > 1 and run.record.map_size is not None:
            labels.append(f"map size {run.record.map_size}")
        if len(objects[data.name, run.record.protocol.id]) > 1:
            labels.append(f"objects {hashlib.sha256(_names(run).encode()).hexdigest()[:6]}")
        found[run.id] = tuple(labels)
    return found


def differences(runs: Sequence[Run]) -> list[str]:
    """One line per data set whose runs are on different data or were scored by different code."""
    lines = []
    for (name, objects), prints in _fingerprints(runs).items():
        if len(prints) > 1:
            several = len({orientation for _, orientation in prints}) > 1
            parts = "; ".join(
                f"data {p[:8]}{f' ({_exif(exif)})' if several else ''}: {', '.join(ids)}"
                for (p, exif), ids in prints.items()
            )
            what = f"{len(objects)} object{'s' if len(objects) > 1 else ''}"
            lines.append(f"runs on different data named {name} ({what}) are in separate tables: {parts}")
    for name, versions in _versions(runs).items():
        if len(versions) > 1:
            parts = "; ".join(f"version {v}: {', '.join(ids)}" for v, ids in sorted(versions.items()))
            lines.append(f"runs on {name} scored by different code are in separate tables: {parts}")
    for name, found in _map_sizes(runs).items():
        if len(found) > 1:
            parts = "; ".join(f"{size} px: {', '.join(ids)}" for size, ids in sorted(found.items()))
            lines.append(f"runs on {name} with maps of different sizes are in separate tables: {parts}")
    for (_, protocol), by_names in _objects(runs).items():
        if len(by_names) > 1:
            parts = "; ".join(f"{names}: {', '.join(ids)}" for names, ids in sorted(by_names.items()))
            lines.append(f"runs of {protocol} with different objects are in separate tables: {parts}")
    return lines


def _material(run: Run) -> tuple[str, frozenset[str]]:
    return run.record.dataset.name, frozenset(run.objects)


def _exif(orientation: str) -> str:
    return f"EXIF {orientation or 'unknown'}"


Material = tuple[str, frozenset[str]]
Pixels = tuple[str, str]  # fingerprint of the files, whether EXIF orientations were applied


def _fingerprints(runs: Sequence[Run]) -> dict[Material, dict[Pixels, list[str]]]:
    found: dict[Material, dict[Pixels, list[str]]] = {}
    for run in runs:
        data = run.record.dataset
        of_material = found.setdefault(_material(run), {})
        of_material.setdefault((data.fingerprint, data.orientation), []).append(run.id)
    return found


def _names(run: Run) -> str:
    return ", ".join(sorted(run.objects))


def _objects(runs: Sequence[Run]) -> dict[tuple[str, str], dict[str, list[str]]]:
    """Data set and protocol -> objects -> ids: the first objects of a folder change when one is added."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run in runs:
        by_names = found.setdefault((run.record.dataset.name, run.record.protocol.id), {})
        by_names.setdefault(_names(run), []).append(run.id)
    return found


def _map_sizes(runs: Sequence[Run]) -> dict[str, dict[int, list[str]]]:
    """Data set -> size of the maps that pixel metrics were computed on -> ids, of runs that record it."""
    found: dict[str, dict[int, list[str]]] = {}
    for run in runs:
        by_size = found.setdefault(run.record.dataset.name, {})
        if run.record.map_size is not None:
            by_size.setdefault(run.record.map_size, []).append(run.id)
    return found


def _versions(runs: Sequence[Run]) -> dict[str, dict[int, list[str]]]:
    found: dict[str, dict[int, list[str]]] = {}
    for run in runs:
        by_version = found.setdefault(run.record.dataset.name, {})
        by_version.setdefault(run.record.scores_version, []).append(run.id)
    return found
