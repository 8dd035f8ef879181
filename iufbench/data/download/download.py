"""Downloads the official archives of a data set, verifies and unpacks them.

All work is done in ``<folder>.download``, next to the requested folder, which appears by a single rename:
it is complete or does not exist.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iufbench.cards.datasets import DataSetCard, dataset_cards
from iufbench.data.datasets import open_dataset
from iufbench.data.download.extract import unpack
from iufbench.data.download.fetch import fetch
from iufbench.data.readers.reading import contents
from iufbench.support.bytebar import ByteBar, readable, require_space
from iufbench.support.errors import InputError, RunError
from iufbench.support.fields import suggest
from iufbench.support.locks import NAME as LOCK
from iufbench.support.locks import locked
from iufbench.support.progress import Progress

UNPACKED = 1.1  # images hardly compress: the archive's size plus 10 % for partly filled disk blocks


@dataclass(frozen=True)
class Archive:
    """An archive to download.

    Attributes:
        url: Its address.
        name: File name to store it under.
        size: Bytes; None if only the server knows.
        sha256: 64 lower-case hexadecimal digits.
        mirrors: Further addresses of the same file, tried in this order after ``url``.
    """

    url: str
    name: str
    size: int | None
    sha256: str
    mirrors: tuple[str, ...] = ()


def downloadable() -> dict[str, DataSetCard]:
    """The data sets whose cards list archives with checksums, by name."""
    found = {}
    for name, card in dataset_cards().items():
        parts = card.download.get("archives", [card.download])
        if card.download and all(re.search(r"\.tar|\.zip$", part.get("archive", "")) for part in parts):
            found[name] = card
    return found


def card_to_download(name: str) -> DataSetCard:
    """The card of a data set that can be downloaded. Raises InputError listing those that can."""
    cards = downloadable()
    if name in cards:
        return cards[name]
    if name == "elpv":
        raise InputError('elpv is distributed as a Python package: pip install "iufbench[elpv]"')
    raise InputError(f"'{name}' cannot be downloaded{suggest(name, cards)} (available: {', '.join(cards)})")


def archives_of(card: DataSetCard, url: str | None = None, sha256: str | None = None) -> list[Archive]:
    """The archives of a data set.

    Args:
        card: The card of the data set.
        url: Address to use instead of the official one. It is expected to serve the same file, unless
            ``sha256`` is given too.
        sha256: Checksum of a different archive.

    Returns:
        The archives to download.

    Raises:
        InputError: ``sha256`` is malformed, or ``url`` or ``sha256`` is given for several archives.
    """
    several = card.download.get("archives")
    if several is None:
        return [_archive_of(card.download, url, sha256)]
    if url is not None or sha256 is not None:
        raise InputError(f"--url and --sha256 describe a single archive, but {card.title} has {len(several)}")
    return [_archive_of(part, None, None) for part in several]


def _archive_of(official: dict[str, Any], url: str | None, sha256: str | None) -> Archive:
    mirrors = () if url else tuple(official.get("mirrors", ()))
    address, name = url or official["url"], official["archive"]
    if sha256 is None:
        return Archive(address, name, official.get("bytes"), official["sha256"], mirrors)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InputError(f"--sha256 {sha256!r}: a sha256 has 64 hexadecimal digits")
    return Archive(address, name, None, sha256.lower(), mirrors)


def complete_root(card: DataSetCard, folder: Path) -> Path | None:
    """Find a complete data set in a folder.

    Args:
        card: The card of the data set.
        folder: Where it would be downloaded to.

    Returns:
        Its data root; None if the folder is empty or does not exist.

    Raises:
        InputError: The folder holds something else, which is never overwritten.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    root = _data_root(folder, card.objects) if folder.is_dir() else None
    reason = "there is no folder for each object" if root is None else _incompleteness(card, root)
    if root is not None and not reason:
        return root
    raise InputError(
        f"{folder} exists but does not hold the complete {card.title} ({reason}): "
        f"move it away or choose another folder"
    )


def _incompleteness(card: DataSetCard, root: Path) -> str:
    try:
        found = open_dataset(card.name, card.objects, root)
    except InputError as error:
        return str(error)
    if found.synthetic:
        return "it is synthetic"
    counts = found.counts()
    if any(counts[o].get(kind, 0) != n for o in card.counts for kind, n in card.counts[o].items()):
        return "the numbers of images differ from the official ones"
    return ""


def download_dataset(
    card: DataSetCard,
    folder: Path,
    archives: Sequence[Archive],
    progress: Progress,
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """Download archives, verify them and unpack them.

    The archives stay in ``<folder>.download``; one placed there by hand is used if its sha256 matches.
    An interrupted download is resumed.

    Args:
        card: The card of the data set.
        folder: Must be empty or not exist; it is created complete or not at all.
        archives: From ``archives_of``.
        progress: Shows the progress.
        wait: Sleeps for a number of seconds before another attempt.

    Returns:
        The data root, in ``folder``.

    Raises:
        InputError: Unusable address, too little disk space, or an unexpected archive.
        RunError: Network failure, or another process downloads to the same folder.
        KeyboardInterrupt: With a message that says how to resume.
    """
    folder = folder.resolve() if folder.is_symlink() else Path(os.path.abspath(folder))
    if folder.is_mount():
        raise InputError(f"{folder} is a mount point: choose a folder inside it, which will be created")
    work = folder.with_name(f"{folder.name}.download")
    try:
        with _locked(work):
            for archive in archives:
                _obtain(card, archive, work / archive.name, progress, wait)
            complete = [work / archive.name for archive in archives]
            root = _unpack(card, complete, folder, work / "unpacked", progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the partial download is kept in {work}; repeat the command to resume it"
        ) from None
    what = "the archive" if len(archives) == 1 else "the archives"
    progress.say(f"{what} in {work} can be deleted")
    return root


def _obtain(
    card: DataSetCard, archive: Archive, complete: Path, progress: Progress, wait: Callable[[float], None]
) -> None:
    """Download an archive to ``complete`` and verify it; one that exists already is verified only."""
    if complete.exists():
        _require_space_to_unpack(complete)
        problem = _difference(complete, archive, progress)
        if problem:
            raise InputError(f"{complete} is not the expected archive ({problem}): delete it and try again")
        progress.say(f"using {complete}")
        return
    # The name contains the checksum, so that parts of different archives are never joined.
    part = complete.with_name(f"{archive.name}.{archive.sha256[:8]}.part")
    have = part.stat().st_size if part.exists() else 0
    if archive.size is not None:
        needed = archive.size - min(have, archive.size) + int(UNPACKED * archive.size)
        require_space(complete.parent, needed, f"{card.title} (archive and images)")
    size = "" if archive.size is None else f" ({readable(archive.size)})"
    progress.say(f"{f'resuming after {readable(have)} of' if have else 'downloading'} {archive.url}{size}")
    addresses = (archive.url, *archive.mirrors)
    for number, url in enumerate(addresses, start=1):
        try:
            _fetch_verified(card, archive, url, part, complete, progress, wait)
            break
        except RunError as error:
            if number == len(addresses):
                raise
            progress.say(f"{error}: trying {addresses[number]}")
    _require_space_to_unpack(complete)


def _fetch_verified(
    card: DataSetCard,
    archive: Archive,
    url: str,
    part: Path,
    complete: Path,
    progress: Progress,
    wait: Callable[[float], None],
) -> None:
    """Download the archive from one address; ``complete`` is created once it is verified. Raises RunError."""
    try:
        fetch(url, part, archive.size, progress, wait)
    except RunError as error:
        raise RunError(
            f"{error}. The partial download is kept; repeat the command to resume it. If the link has moved, "
            f"find the archive at {card.home} and give --url, or place it at {complete}"
        ) from error
    problem = _difference(part, archive, progress)
    if problem:
        wrong = complete.with_name(f"{archive.name}.wrong")
        os.replace(part, wrong)
        raise RunError(
            f"{url} served an unexpected file ({problem}), moved to {wrong}. "
            f"Try again; if this persists, find the archive at {card.home} and give --url"
        )
    os.replace(part, complete)


def _require_space_to_unpack(archive: Path) -> None:
    require_space(archive.parent, int(UNPACKED * archive.stat().st_size), f"unpacking {archive.name}")


def _difference(path: Path, archive: Archive, progress: Progress) -> str:
    """How a file differs from the expected archive; "" if it does not."""
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        return f"{size} bytes instead of {archive.size}"
    digest = hashlib.sha256()
    with ByteBar(progress, "verify", size) as bar, path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            bar.advance(len(block))
    found = digest.hexdigest()
    return "" if found == archive.sha256 else f"sha256 {found} instead of {archive.sha256}"


def _unpack(
    card: DataSetCard, archives: Sequence[Path], folder: Path, temporary: Path, progress: Progress
) -> Path:
    """Unpack to ``temporary`` and rename it to ``folder`` when complete. Returns the data root."""
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed here
    try:
        for archive in archives:
            unpack(archive, temporary, progress)
        root = _data_root(temporary, card.objects)
        if root is None:
            raise InputError(
                f"{archives[0]} has no folder for each object of {card.title}: is it another data set?"
            )
        inside = root.relative_to(temporary)
        try:
            os.replace(temporary, folder)
        except OSError as error:
            raise RunError(f"cannot rename {temporary} to {folder}: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder / inside


def _data_root(folder: Path, objects: Sequence[str]) -> Path | None:
    """The folder with one folder per object: ``folder``, or the only folder in it, and so on; else None."""
    while not all((folder / name).is_dir() for name in objects):
        folders = contents(folder)[1]
        if len(folders) != 1:
            return None
        folder = folders[0]
    return folder


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Create the folder and lock it; on exit it is removed if it is empty."""
    with ExitStack() as stack:
        try:
            work.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(locked(work))
        except OSError as error:
            raise InputError(f"cannot create {work}: {error.strerror}; choose a writable folder") from error
        if not held:
            raise RunError(f"another process is downloading to {work}: wait for it to finish")
        try:
            yield
        finally:
            (work / LOCK).unlink()  # no process waits for it
            with suppress(OSError):  # not empty: the folder is kept
                work.rmdir()
