"""Arrays on disk that are made once: checked when read, resumed when killed, one builder at a time.

An entry is a folder with ``data`` (rows in C order, nothing else) and ``entry.json`` (what it is, and the
CRC-32 of every chunk of rows). It grows under its name with ``.part`` behind, where ``chunks`` lists what
is complete, and is renamed when all of it is on disk. ``lock`` in the ``.part`` folder is held by the process
that builds, whose number it has; the lock is the system's own and ends with the process, however that dies.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iufbench.support.bytebar import free_space, readable
from iufbench.support.errors import RunError
from iufbench.support.files import read_json, write_json
from iufbench.support.progress import Progress
from iufbench.support.provenance import now
from iufbench.support.version import __version__

FORMAT = 1
CHUNK = 64  # rows that are checked, and lost by a kill, together
DATA, ENTRY, CHUNKS, LOCK, PART = "data", "entry.json", "chunks", "lock", ".part"
HOLDER_BYTES = 200
WAIT = 0.2  # seconds between two looks at a lock that another process holds


class CacheUnusable(Exception):
    """The cache cannot serve, and says why: whoever asked does the work in memory."""


class _Damaged(Exception):
    """An entry is there and is not what it should be."""


@dataclass(frozen=True)
class Spec:
    """What an entry holds. ``kind``: images, guides or features; ``label``: a readable start of its name.

    ``identity`` is what the entry stands for, ``version`` the state of the files it is made from: of one
    identity only the newest version is kept. ``shape`` and ``dtype`` are those of one of the ``rows``.
    """

    kind: str
    label: str
    identity: Mapping[str, Any]
    version: str
    rows: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def family(self) -> str:
        """The beginning of the names of all versions."""
        text = json.dumps([self.identity, self.rows, self.shape, self.dtype], sort_keys=True)
        label = re.sub(r"[^\w.-]", "_", self.label)
        return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:12]}-"

    @property
    def name(self) -> str:
        return f"{self.family}{self.version[:12]}"

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        return self.rows * self.row_bytes

    def place(self, folder: Path) -> Path:
        """Where the entry lies below the cache folder."""
        return folder / self.kind / self.name

    def described(self) -> dict[str, Any]:
        """All of it as plain values, for ``entry.json``."""
        return {
            "format": FORMAT, "kind": self.kind, "label": self.label, "identity": dict(self.identity),
            "version": self.version, "rows": self.rows, "shape": list(self.shape), "dtype": self.dtype,
        }  # fmt: skip


def obtain(
    folder: Path, spec: Spec, produce: Callable[[int], Iterable[np.ndarray]], progress: Progress
) -> np.ndarray:
    """The rows [rows, *shape], memory-mapped and read-only; made by ``produce`` when they are not there.

    ``produce(n)`` gives the rows from the n-th on in pieces of ``CHUNK`` (the last one smaller). A process
    that finds another at the same entry waits for it. Raises CacheUnusable when the folder cannot be
    written, the disk has no room or fails; nothing half-made is left then. What ``produce`` raises goes
    through; after an interrupt the next call goes on where this one was.
    """
    place = spec.place(folder)
    try:
        for _ in range(3):  # a fresh entry is read back, and made once more if it comes back damaged
            with _opened_or_locked(place, spec, progress) as found:
                if found is not None:
                    return found
                _build(place, spec, produce, progress)
        raise CacheUnusable(f"the disk of {folder} does not give back what was written")
    except OSError as error:
        raise CacheUnusable(f"the cache in {folder} cannot be used ({error.strerror or error})") from error


@contextmanager
def _opened_or_locked(place: Path, spec: Spec, progress: Progress) -> Iterator[np.ndarray | None]:
    """The entry, or None while this process alone may build it."""
    found, _ = _looked_at(place, spec)
    if found is not None:
        yield found
        return
    with locked(part_of(place), progress):
        found, problem = _looked_at(place, spec)  # another process may have made it meanwhile
        if problem:
            progress.say(f"cache {place}: {problem}; it is made anew")
            shutil.rmtree(place)
        yield found
        if found is not None:
            shutil.rmtree(part_of(place), ignore_errors=True)


def _looked_at(place: Path, spec: Spec) -> tuple[np.ndarray | None, str]:
    """The entry, or None and what is wrong with it ("" when there is none)."""
    try:
        return _opened(place, spec), ""
    except _Damaged as error:
        return None, str(error)


def part_of(place: Path) -> Path:
    """Where an entry grows."""
    return place.with_name(place.name + PART)


@contextmanager
def locked(part: Path, progress: Progress | None) -> Iterator[None]:
    """Hold a ``.part`` folder, made if need be; without ``progress`` BlockingIOError instead of waiting."""
    import fcntl  # not on Windows

    said = False
    while True:
        part.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(part / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its builder has just finished and renamed the folder
            continue
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if progress is None:
                        raise
                    _refuse_to_wait_for_parent(lock, part)
                    if not said:
                        progress.say(f"another process is making {part.name.removesuffix(PART)}: waiting")
                        said = True
                    time.sleep(WAIT)
            if _is_file(part / LOCK, lock):
                os.truncate(lock, 0)
                os.pwrite(lock, _holder(os.getpid()), 0)
                yield
                return
        finally:
            os.close(lock)


def _holder(process: int) -> bytes:
    """What a lock file says of who holds it; machines and containers may share a cache."""
    return f"{process} {platform.node()}".encode()[:HOLDER_BYTES]


def _refuse_to_wait_for_parent(lock: int, part: Path) -> None:
    """A worker that runs its parent's script again would wait for the parent, which waits for the worker."""
    if os.pread(lock, HOLDER_BYTES, 0) == _holder(os.getppid()):
        raise RunError(
            f"the process that started this one is making {part.name.removesuffix(PART)}: "
            "a script that starts runs needs: if __name__ == '__main__':"
        )


def _is_file(path: Path, handle: int) -> bool:
    """Whether an open file still is the one of that name: its folder may have been renamed meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _opened(place: Path, spec: Spec) -> np.ndarray | None:
    """The entry at ``place`` with every chunk compared; None when there is none, _Damaged with the reason."""
    if not place.is_dir():
        return None
    entry = read_entry(place)
    wanted = spec.described()
    if any(entry.get(name) != value for name, value in wanted.items()):
        raise _Damaged("it does not say what its name says")
    return _checked(place, entry)


def read_entry(place: Path) -> dict[str, Any]:
    """``entry.json``. Raises _Damaged."""
    try:
        entry = read_json(place / ENTRY)
    except RunError as error:
        raise _Damaged(f"it is damaged ({error})") from error
    if entry.get("format") != FORMAT:
        maker = f"iufbench {entry.get('iufbench')}, format {entry.get('format')!r}"
        raise _Damaged(f"it was made by another version ({maker}; this one has format {FORMAT})")
    return entry


def _checked(place: Path, entry: Mapping[str, Any]) -> np.ndarray:
    """The array of an entry, after reading all of it. Raises _Damaged."""
    try:
        rows, shape, dtype = entry["rows"], tuple(entry["shape"]), np.dtype(entry["dtype"])
        wanted = rows * math.prod(shape) * dtype.itemsize
        size = (place / DATA).stat().st_size
        if size != wanted:
            raise _Damaged(f"{size} bytes instead of {wanted}")
        array = np.memmap(place / DATA, dtype=dtype, mode="r", shape=(rows, *shape))
        sums = list(entry["checksums"])
        if [zlib.crc32(array[start : start + CHUNK].data) for start in range(0, rows, CHUNK)] != sums:
            raise _Damaged("its content is damaged")
    except FileNotFoundError as error:
        raise _Damaged("its data are missing") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _Damaged(f"its {ENTRY} is damaged ({type(error).__name__}: {error})") from error
    return array


def problem_of(place: Path) -> str:
    """What is wrong with a complete entry; "" when nothing is. Reads all of it."""
    try:
        _checked(place, read_entry(place))
    except _Damaged as error:
        return str(error)
    return ""


def _build(
    place: Path, spec: Spec, produce: Callable[[int], Iterable[np.ndarray]], progress: Progress
) -> None:
    """Fill the ``.part`` folder, whose lock is held, and rename it."""
    part = part_of(place)
    try:
        sums = _complete_chunks(part, spec)
        done = min(len(sums) * CHUNK, spec.rows)
        missing, free = (spec.rows - done) * spec.row_bytes, free_space(part)
        if missing > free:
            raise CacheUnusable(
                f"caching {spec.label} {spec.kind} needs {readable(missing)} in {place.parent}, "
                f"where {readable(free)} can be used"
            )
        outdated = _other_versions(place, spec)
        if any(not p.name.endswith(PART) for p in outdated):
            progress.say(f"the files behind the cached {spec.label} {spec.kind} have changed: made anew")
        on = f" ({done} of them are there)" if done else ""
        progress.say(f"caching {spec.rows} {spec.label} {spec.kind}{on}: {readable(spec.bytes)} in {place}")
        pieces = produce(done)
        with progress.bar(f"caching {spec.kind}", spec.rows) as bar:
            bar.advance(done)
            _append(part, spec, sums, pieces, bar.advance)
        _seal(part, {**spec.described(), "iufbench": __version__, "made": now(), "checksums": sums})
        os.rename(part, place)
    except KeyboardInterrupt:
        raise  # complete chunks stay, as after a kill
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    for old in outdated:
        remove(old)


def _seal(part: Path, entry: Mapping[str, Any]) -> None:
    try:
        write_json(part / ENTRY, entry)
    except RunError as error:
        raise CacheUnusable(str(error)) from error
    (part / CHUNKS).unlink()


def remove(place: Path) -> bool:
    """Remove an entry or what there is of one; False when a process is at work on it.

    Who reads it goes on reading: the system keeps the file until nobody has it open.
    """
    if not place.name.endswith(PART):
        shutil.rmtree(place)
        return True
    try:
        with locked(place, None):
            shutil.rmtree(place)
    except BlockingIOError:
        return False
    return True


def _append(
    part: Path,
    spec: Spec,
    sums: list[int],
    pieces: Iterable[np.ndarray],
    advance: Callable[[int], None],
) -> None:
    """Write the missing chunks, each noted in ``chunks`` once it is on the disk; ``sums`` grows.

    Written, not mapped: a full disk is an error here and a fatal signal there.
    """
    with open(part / DATA, "r+b") as data, open(part / CHUNKS, "a") as journal:
        data.seek(0, os.SEEK_END)
        for piece in pieces:
            content = np.ascontiguousarray(piece, dtype=spec.dtype)
            rows = min(CHUNK, spec.rows - len(sums) * CHUNK)
            if content.shape != (rows, *spec.shape):
                raise ValueError(f"{spec.name}: a chunk is {content.shape}, not {(rows, *spec.shape)}")
            data.write(content.data)
            data.flush()
            os.fsync(data.fileno())
            sums.append(zlib.crc32(content.data))
            journal.write(f"{sums[-1]}\n")
            journal.flush()
            advance(rows)


def _complete_chunks(part: Path, spec: Spec) -> list[int]:
    """Checksums of the chunks that an earlier process completed; the data file is cut after them."""
    header = f"format {FORMAT}\n"
    path = part / CHUNKS
    text = path.read_text() if path.exists() else ""
    sums: list[int] = []
    if text.startswith(header):
        sums = [int(line) for line in re.findall(r"^(\d+)\n", text, re.M)]
    with open(part / DATA, "ab"):
        pass
    whole = min(len(sums) * CHUNK, spec.rows) * spec.row_bytes
    if len(sums) > -(-spec.rows // CHUNK) or os.stat(part / DATA).st_size < whole:
        sums, whole = [], 0
    os.truncate(part / DATA, whole)
    path.write_text(header + "".join(f"{s}\n" for s in sums))
    return sums


def _other_versions(place: Path, spec: Spec) -> list[Path]:
    own = {place.name, part_of(place).name}
    return [p for p in place.parent.iterdir() if p.name.startswith(spec.family) and p.name not in own]
