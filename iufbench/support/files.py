"""Files written atomically, and read with errors that a user can act on.

A kill at any moment leaves the old file or the new one, never a partial file.
"""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import hashlib
import io
import itertools
import json
import math
import os
import platform
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from iufbench.support.errors import RunError

PathOrText = str | os.PathLike[str]
LARGEST = 2**30  # bytes of a file that is read as a whole
LONGEST_ROW = 2**16  # characters of one row of a table
DEEPEST = 64  # levels of nested JSON
ROWS_AT_ONCE = 256  # few enough that a part is freed before the garbage collector walks over it


def write_bytes(path: Path | str, data: bytes | memoryview) -> Path:
    """Write atomically: temporary file in the same folder, flushed to disk, then renamed over ``path``.

    Raises RunError naming the path if the disk is full or writing is not permitted.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent.resolve())
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)  # the rename must survive a power failure too
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; check free space and permissions"
        ) from error
    return path


_HOST = re.sub(r"[^A-Za-z0-9-]", "_", platform.node()) or "host"
_LEFTOVER = re.compile(rf"\..*\.{re.escape(_HOST)}\.([0-9]+)\.tmp", re.DOTALL)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine left unfinished in a folder; once per process."""
    with os.scandir(folder) as entries:
        found = [(entry.path, match) for entry in entries if (match := _LEFTOVER.fullmatch(entry.name))]
    for path, match in found:
        if not _lives(int(match[1])):
            with suppress(OSError):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)


@contextmanager
def work_folder(place: Path) -> Iterator[Path]:
    """Create a hidden folder beside ``place``, to be filled and renamed, and remove what is left of it.

    Those that killed processes of this machine left are removed too.
    """
    parent = place.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent.resolve())
    folder = Path(tempfile.mkdtemp(prefix=".new-", suffix=f".{_HOST}.{os.getpid()}.tmp", dir=parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is not a mere check
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process
        return True
    return True


def write_text(path: Path | str, text: str) -> Path:
    """Write text atomically as UTF-8; file names that are not UTF-8 keep their bytes, halves of other
    characters are escaped.
    """
    return write_bytes(path, _encoded(text))


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def write_json(path: Path | str, value: Any) -> Path:
    """Write ``json_text`` atomically."""
    return write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """``value`` as JSON. NaN and infinity, which JSON lacks, become null.

    >>> print(json_text({"acc": float("nan")}))
    {
     "acc": null
    }
    """
    return json.dumps(_plain(value), indent=1, allow_nan=False)


def write_csv(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table atomically, compressed if the name ends in .gz (without a time stamp: same rows, same
    bytes). Reading returns the same float64 values; NaN and None become empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    data = _encoded(text.getvalue())
    if str(path).endswith(".gz"):
        data = gzip.compress(data, compresslevel=6, mtime=0)
    return write_bytes(path, data)


def _cell(value: Any) -> Any:
    if hasattr(value, "item"):  # numpy and torch scalars
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return repr(value)
    return value


def _plain(value: Any) -> Any:
    """``value`` in JSON's types: paths as text, numpy scalars and arrays as numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def open_file(path: Path | str, limit: int = LARGEST) -> BinaryIO:
    """Open a regular file of at most ``limit`` bytes for reading.

    Raises RunError for anything else: links are not followed, and pipes and devices may never end.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb")
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise RunError(f"cannot read {path}: {reason}") from error
    status = os.fstat(file.fileno())
    reason = None if stat.S_ISREG(status.st_mode) else "it is not a regular file"
    if reason is None and status.st_size > limit:
        reason = f"it has {status.st_size:,} bytes; the limit is {limit:,}"
    if reason is not None:
        file.close()
        raise RunError(f"cannot read {path}: {reason}")
    return file


def file_sha256(path: Path | str) -> str:
    """SHA-256 (hex) of a regular file, read in blocks. RunError as ``open_file``."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def read_text(path: Path | str, limit: int = LARGEST) -> str:
    """Read the text of a regular file of at most ``limit`` bytes. Raises RunError if it cannot be read."""
    try:
        with open_file(path, limit) as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path | str, limit: int = LARGEST) -> dict[str, Any]:
    """Read a JSON object. Raises RunError naming file and line if it is something else or corrupted."""
    try:
        value = json.loads(
            read_text(path, limit),
            object_pairs_hook=_fields,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except json.JSONDecodeError as error:
        raise RunError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise RunError(f"{path}: brackets are nested too deeply") from error
    except UnicodeEncodeError as error:
        raise RunError(f"{path}: a key is not UTF-8 text") from error
    except _NotJson as error:
        raise RunError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected an object, found {type(value).__name__}")
    if _is_deep(value):
        raise RunError(f"{path}: brackets are nested too deeply")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return False
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = list(itertools.chain.from_iterable(inner))
    return True


class _NotJson(ValueError):
    """Content that Python's parser accepts and others do not, or read differently."""


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields. Raises UnicodeEncodeError for a key that holds half a character, _NotJson for a
    duplicate key.
    """
    found = dict(pairs)
    for key in found:
        key.encode()
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise _NotJson(f"duplicate key {twice[:40]!r}")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is not a number in JSON")


def _integer(text: str) -> int:
    if len(text) > 20:  # of 64 bits
        raise _NotJson("a number has too many digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotJson(f"the number {text[:40]} is too large")
    return value


class Rows(NamedTuple):
    """Some rows of a table: the text of lines without quotes, or lists of cells."""

    content: str | list[list[str]]

    def rows(self) -> list[list[str]]:
        """The cells of every row; none in an empty line."""
        if isinstance(self.content, list):
            return self.content
        return [line.split(",") if line else [] for line in self.content.split("\n")]

    def columns(self, width: int) -> list[Sequence[str]] | None:
        """The cells of every column; None if a row has not ``width`` cells. An empty line has one here."""
        if isinstance(self.content, list):
            return [*zip(*self.content)] if {*map(len, self.content)} == {width} else None
        lines = self.content.count("\n") + 1
        cells = self.content.replace("\n", ",\n").split(",")
        # Each line but the first now begins with a newline, and no other cell contains one.
        first = "".join(cells[::width]).split("\n")
        if len(cells) != lines * width or len(first) != lines:
            return None
        return [first, *(cells[k::width] for k in range(1, width))]


def read_csv(path: Path | str, limit: int = LARGEST) -> Iterator[list[list[str]]]:
    """Read a table in bounded memory: yields some rows at a time, each a list of cells.

    Arguments and errors are those of :func:`csv_parts`.
    """
    return (part.rows() for part in csv_parts(path, limit))


def csv_parts(path: Path | str, limit: int = LARGEST) -> Iterator[Rows]:
    """Read a table in bounded memory, decompressed if the name ends in .gz.

    Args:
        path: The file.
        limit: Bytes that it may have, compressed and decompressed.

    Yields:
        The first row, then some rows at a time: what ``csv.reader`` finds, several times as fast where there
        are no quotes.

    Raises:
        RunError: The file cannot be read, exceeds the limit, or has a row of more than ``LONGEST_ROW``
            characters.
    """
    pending = [0]  # characters read since the last row ended
    begun = False
    try:
        with open_file(path, limit) as file:
            stream: Any = gzip.GzipFile(fileobj=file) if str(path).endswith(".gz") else file
            texts = _texts(stream, path, limit, pending)
            for text in texts:
                if any(special in text for special in '"\r\0'):
                    texts = itertools.chain([text], texts)
                    break
                pending[0] = 0
                text = text.removesuffix("\n")
                if not begun:
                    first, newline, text = text.partition("\n")
                    begun = True
                    yield Rows(first)
                    if not newline:
                        continue
                yield Rows(text)
            rows = []
            for row in csv.reader(itertools.chain.from_iterable(io.StringIO(t, newline="") for t in texts)):
                pending[0] = 0
                rows.append(row)
                if len(rows) == ROWS_AT_ONCE or not begun:
                    begun = True
                    yield Rows(rows)
                    rows = []
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"cannot read {path}: {reason}") from error
    if rows:
        yield Rows(rows)


def _texts(stream: Any, path: Path | str, limit: int, pending: list[int]) -> Iterator[str]:
    """Yield the text of some whole lines at a time."""
    # Not io.TextIOWrapper, which warns if it is collected before its stream is closed.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    rest, total, data = "", 0, b"..."
    while data:
        data = stream.read(LONGEST_ROW)
        block = decoder.decode(data, final=not data)
        pending[0] += len(block)
        total += len(block)
        if pending[0] > 2 * LONGEST_ROW or len(rest) > LONGEST_ROW:
            raise RunError(f"cannot read {path}: a row has more than {LONGEST_ROW:,} characters")
        if total > limit:
            raise RunError(f"cannot read {path}: it has more than {limit:,} characters when unpacked")
        whole, newline, last = block.rpartition("\n")
        if newline:
            yield rest + whole + newline
            rest = last
        else:
            rest += last
    if rest:
        yield rest
