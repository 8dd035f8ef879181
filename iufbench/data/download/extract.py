"""Extraction of untrusted archives: regular files below one folder, all or nothing."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from iufbench.data.readers.reading import path_below
from iufbench.support.bytebar import ByteBar, free_space, readable
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress

KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
}


MOST_HEADER_BYTES = 1 << 20  # of a long name or an extended header, which tarfile reads into memory


class Bounded(tarfile.TarInfo):
    """An entry whose name is limited in size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Bounded:
        entry = super().frombuf(buf, encoding, errors)
        whole = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
        if entry.type in whole and entry.size > MOST_HEADER_BYTES:
            raise InputError(f"not unpacked: the archive has an entry with a name of {entry.size:,} bytes")
        return entry


def unpack(archive: Path, folder: Path, progress: Progress) -> int:
    """Unpack a .zip, .tar, .tar.gz, .tar.xz or .tar.bz2.

    Folders, regular files and hard links to earlier files of the same archive are accepted. Absolute paths,
    ``..``, symbolic links, devices, pipes, sparse files, duplicate entries and contents larger than the free
    disk space are errors. The caller removes what was written before an error.

    Args:
        archive: The archive; its type is detected from its content.
        folder: Where to unpack it; created if it is missing.
        progress: Shows the progress.

    Returns:
        The number of files.

    Raises:
        InputError: An entry is not accepted (the message names it), or the archive is corrupted.
        RunError: Writing fails.
    """
    with archive.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # the end of a tar may look like a zip, its start never does
    if is_zip:
        return _unpack_zip(archive, folder, progress)
    if not hasattr(tarfile, "data_filter"):
        raise InputError("safe extraction requires Python 3.10.12, 3.11.4 or newer: update Python")
    room = free_space(folder.parent)
    files: set[Path] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            archive.open("rb") as raw,
            tarfile.open(fileobj=raw, mode="r:*", tarinfo=Bounded) as tar,
            ByteBar(progress, "unpack", archive.stat().st_size) as bar,
        ):
            position = 0
            for member in tar:
                _require_harmless(member, folder, files, archive)
                room -= member.size
                if room < 0:
                    raise InputError(f"{archive} holds more than the disk of {folder} has room for")
                tar.extract(member, folder, filter="data")
                bar.advance(raw.tell() - position)
                position = raw.tell()
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile lists every compression it tried
        raise InputError(f"{archive} is corrupted or not a tar archive ({reason})") from error
    except OSError as error:
        raise RunError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from error
    return len(files)


def _unpack_zip(archive: Path, folder: Path, progress: Progress) -> int:
    room = free_space(folder.parent)
    where = f"{archive} was not unpacked"
    files: set[Path] = set()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.is_dir()]
            with ByteBar(progress, "unpack", sum(member.file_size for member in members)) as bar:
                for member in members:
                    path = path_below(folder, member.filename, where)
                    if stat.S_ISLNK(member.external_attr >> 16):
                        raise InputError(f"{where}: {member.filename!r} is a symbolic link")
                    if path in files:
                        raise InputError(f"{where}: {member.filename!r} is a duplicate entry")
                    room -= member.file_size
                    if room < 0:
                        raise InputError(f"{archive} holds more than the disk of {folder} has room for")
                    files.add(path)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(member) as source, path.open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    bar.advance(member.file_size)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is corrupted or of an unsupported type ({error})") from error
    except OSError as error:
        raise RunError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from error
    return len(files)


def _require_harmless(member: tarfile.TarInfo, folder: Path, files: set[Path], archive: Path) -> None:
    """Raise InputError if the member must not be written, else add its file to ``files``."""
    where = f"{archive} was not unpacked"
    path = path_below(folder, member.name, where)
    if member.isdir():
        return
    shown = f"{where}: {member.name!r} is"
    if member.type in KINDS or not (member.isreg() or member.islnk()):
        raise InputError(f"{shown} {KINDS.get(member.type, 'of an unknown type')}, not a file or folder")
    if member.issparse():
        raise InputError(f"{shown} a sparse file ({readable(member.size)}), not an image")
    if path in files:
        raise InputError(f"{shown} a duplicate entry")
    if member.islnk() and path_below(folder, member.linkname, where) not in files:
        raise InputError(f"{shown} a hard link to {member.linkname!r}, which is not an earlier file")
    files.add(path)
