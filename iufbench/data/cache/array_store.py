"""Arrays on disk that are built once and memory-mapped afterwards, by one process at a time.

A file is renamed to its final name when it is complete, and then listed in the manifest: an interrupted
build resumes after the last complete file. Entries of another user are read, but never written to, and are
compared with the data first.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from iufbench.data.cache import entry
from iufbench.data.cache.entry import MANIFEST, Damaged, Spec, Stored, complete_files, problem_of
from iufbench.support.bytebar import free_space, readable
from iufbench.support.errors import RunError
from iufbench.support.files import write_json
from iufbench.support.locks import NAME as LOCK
from iufbench.support.locks import locked
from iufbench.support.progress import Progress
from iufbench.support.provenance import now
from iufbench.support.version import __version__

SAMPLE = 32  # rows of another user's entry that are compared with the data
PART = ".part"

Produce = Callable[[Sequence[int]], Iterable[np.ndarray]]


class CacheUnusable(Exception):
    """The cache cannot be used (the message says why): the caller does the work in memory."""


def obtain(folder: Path, spec: Spec, produce: Produce, progress: Progress, compare: bool = False) -> Stored:
    """Return the rows of an entry, built by ``produce`` if needed.

    Args:
        folder: The cache folder.
        spec: Identity and shape of the entry.
        produce: Given row numbers, yields these rows in order, in pieces [n, *shape] of any n.
        progress: Called with messages; shows a bar while the entry is built.
        compare: Compare an entry with its checksums and with ``SAMPLE`` rows computed from the data before it
            is used. Entries of another user, or that other users can write to, are always compared.

    Returns:
        The complete entry.

    Raises:
        CacheUnusable: The folder cannot be written, the disk is full or fails, the entry is unfinished and
            belongs to another user, or it does not match the data. Only complete files are kept.
        Exception: Any exception of ``produce``.
    """
    place = spec.place(folder)
    try:
        found = _found(place, spec, progress)
        if found is None:
            return _made(place, spec, produce, progress)
        if compare or not private((place, place / MANIFEST, *place.glob("*.npy"))):
            _compare(place, spec, found, produce, progress)
        return found
    except OSError as error:
        raise CacheUnusable(f"the cache in {folder} cannot be used ({error.strerror or error})") from error


def _found(place: Path, spec: Spec, progress: Progress) -> Stored | None:
    """The complete entry; None if it is missing, unfinished or corrupted (which is reported)."""
    try:
        files, _ = complete_files(place, spec)
        return Stored(files) if sum(map(len, files)) == spec.rows else None
    except Damaged as error:
        progress.say(f"cache {place}: {error}; it is rebuilt")
        return None


def _made(place: Path, spec: Spec, produce: Produce, progress: Progress) -> Stored:
    """Build the missing part of an entry, or wait for the process that builds it."""
    place.parent.parent.mkdir(parents=True, exist_ok=True)  # may be a link: it is the user's own choice
    own_folder(place.parent, 0o777)
    own_folder(place, 0o755, entry=True)
    with locked(place) as held:
        if held:
            return _built(place, spec, produce, progress)
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        # A worker that runs its parent's script again would wait for the parent, which waits for the worker.
        raise RunError(
            f"the process that started this one is building {place.name}: "
            "a script that starts runs needs: if __name__ == '__main__':"
        )
    progress.say(f"another process is building {place.name}: waiting")
    with locked(place, wait=-1):
        return _built(place, spec, produce, progress)


def _built(place: Path, spec: Spec, produce: Produce, progress: Progress) -> Stored:
    """The entry; its lock is held."""
    try:
        files, manifest = complete_files(place, spec)
    except Damaged:  # said already
        files, manifest = [], {}
    if not files:
        for rest in place.iterdir():
            if rest.name != LOCK:
                rest.unlink()
    done = sum(map(len, files))
    if done < spec.rows:
        outdated = [p for p in place.parent.iterdir() if p.name.startswith(spec.family) and p != place]
        try:
            _require_room(place, spec, done)
            if outdated:
                progress.say(f"the files behind the cached {spec.label} {spec.kind} have changed: rebuilding")
            there = f" ({done} of them exist)" if done else ""
            progress.say(
                f"caching {spec.rows} {spec.label} {spec.kind}{there}: {readable(spec.bytes)} in {place}"
            )
            manifest = manifest or {**spec.described(), "iufbench": __version__, "files": []}
            with progress.bar(f"caching {spec.kind}", spec.rows) as bar:
                bar.advance(done)
                for start in range(done, spec.rows, entry.FILE_ROWS):
                    _add_file(place, spec, start, manifest, produce, bar.advance)
        except BaseException:
            _drop_unfinished(place)
            raise
        for old in outdated:
            with suppress(OSError):  # another user's
                remove(old)
        files, _ = complete_files(place, spec)
    return Stored(files)


def _add_file(
    place: Path,
    spec: Spec,
    start: int,
    manifest: dict[str, Any],
    produce: Produce,
    advance: Callable[[int], None],
) -> None:
    """Write the file that begins with row ``start``, and list it in the manifest.

    Written, not mapped: a full disk raises an error in a write and a fatal signal in a mapped file.
    """
    rows = range(start, min(start + entry.FILE_ROWS, spec.rows))
    name, done, checksum = f"{start // entry.FILE_ROWS:05d}.npy", 0, 0
    part = place / f"{name}{PART}"
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
    with open(handle, "wb") as file:
        kind, shape = np.dtype(spec.dtype).str, (len(rows), *spec.shape)
        npy.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        for piece in produce(rows):
            content = np.ascontiguousarray(piece, dtype=spec.dtype)
            done += len(content)
            if content.shape[1:] != spec.shape or done > len(rows):
                raise ValueError(f"{spec.name}: {content.shape} does not fit into {shape}")
            file.write(content.data)
            checksum = zlib.crc32(content.data, checksum)
            advance(len(content))
        if done != len(rows):
            raise ValueError(f"{spec.name}: {done} rows instead of {len(rows)}")
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, place / name)
    manifest["files"].append({"name": name, "rows": len(rows), "crc32": checksum})
    manifest["made"] = now()
    try:
        write_json(place / MANIFEST, manifest)
        os.chmod(place / MANIFEST, 0o644)
    except RunError as error:
        raise CacheUnusable(str(error)) from error


def _require_room(place: Path, spec: Spec, done: int) -> None:
    missing, free = (spec.rows - done) * spec.row_bytes, free_space(place)
    if missing > free:
        raise CacheUnusable(
            f"caching {spec.label} {spec.kind} needs {readable(missing)} in {place.parent}, "
            f"where {readable(free)} are available"
        )


def _drop_unfinished(place: Path) -> None:
    """Clean up after a failure: keep complete files, remove a folder without any."""
    with suppress(OSError):
        for part in place.glob(f"*{PART}"):
            part.unlink()
        if not (place / MANIFEST).exists():
            shutil.rmtree(place)


def remove(place: Path) -> bool:
    """Remove an entry; returns False if a process is building it.

    Processes that read it are not affected: the system keeps a file until it is closed everywhere.

    Raises:
        OSError: It belongs to another user, or is a link.
    """
    with locked(place) as held:
        if held:
            shutil.rmtree(place)
    return held


def _compare(place: Path, spec: Spec, found: Stored, produce: Produce, progress: Progress) -> None:
    """Raise CacheUnusable unless checksums and randomly drawn rows match the data."""
    progress.say(f"comparing the cache {place} with its checksums and {SAMPLE} rows with the data")
    problem = problem_of(place)
    if problem:
        raise CacheUnusable(f"the cache {place} is not used: {problem}")
    rows = sorted(random.SystemRandom().sample(range(spec.rows), min(SAMPLE, spec.rows)))
    fresh: Iterator[np.ndarray] = (row for piece in produce(rows) for row in piece)
    for number, row in zip(rows, fresh, strict=True):
        if not np.array_equal(found[number], row):
            raise CacheUnusable(f"the cache {place} is not used: row {number} does not match the data")


def private(paths: Iterable[Path]) -> bool:
    """Whether only this user (or root) can write to files and folders, none of which is a link."""
    if not hasattr(os, "geteuid"):
        return True
    for path in paths:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            return False
    return True


def own_folder(folder: Path, mode: int, entry: bool = False) -> None:
    """Create a folder of the cache, or accept one that others cannot redirect; links are not followed.

    Args:
        folder: The folder; the one above it exists.
        mode: Of a new one, before the umask.
        entry: It is an entry, which only this user may write to; else one for entries, which others may add
            to if it has the sticky bit.

    Raises:
        CacheUnusable: It is a link, or other users can write to it.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode)
        return
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a folder"
        raise CacheUnusable(f"the cache in {folder} cannot be used: it is {kind}")
    if entry and hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise CacheUnusable(f"the cache {folder} is unfinished and belongs to user {status.st_uid}")
    if status.st_mode & (0o022 if entry else 0o002) and not status.st_mode & stat.S_ISVTX:
        raise CacheUnusable(
            f"the cache in {folder} cannot be used: other users can write to it (chmod go-w, or +t)"
        )
