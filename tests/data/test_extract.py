"""Archives of all kinds, and those with paths outside their folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from download_site import (
    QUIET,
    TINY,
    archive_of,
    entry,
    fails,
    get,
    sha256,
    tar_of,
    tiny_files,
    tree,
)

from iufbench.data.download.download import complete_root
from iufbench.data.download.extract import unpack
from iufbench.support import bytebar
from iufbench.support.errors import InputError


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_all_kinds_of_tar_are_unpacked(tmp_path, mode):
    path = tmp_path / "archive"
    same = entry("copy.txt", tarfile.LNKTYPE, "readme.txt")
    path.write_bytes(tar_of(tiny_files(), entry("empty", tarfile.DIRTYPE), same, mode=mode))
    assert unpack(path, tmp_path / "out", QUIET) == len(tiny_files()) + 1
    files = tiny_files()
    assert tree(tmp_path / "out") == {**files, "copy.txt": files["readme.txt"]}
    assert (tmp_path / "out" / "empty").is_dir()


def test_a_folder_around_everything_is_part_of_the_data_root(card, site, tmp_path):
    site.content = tar_of(tiny_files("Tiny_2022/"))
    root, _ = get(card, tmp_path / "tiny", archive=archive_of(card, site.url, sha256(site.content)))
    assert root == tmp_path / "tiny" / "Tiny_2022"
    assert complete_root(card, tmp_path / "tiny") == root


def zip_of(files: dict[str, bytes], link: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            packed.writestr(info, "/etc/passwd")
    return stream.getvalue()


def test_a_zip_is_unpacked(tmp_path):
    (tmp_path / "archive").write_bytes(zip_of(tiny_files()))
    assert unpack(tmp_path / "archive", tmp_path / "out", QUIET) == len(tiny_files())
    assert tree(tmp_path / "out") == tiny_files()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of({"../evil": b"x"}), "not a relative path"),
        (zip_of({"/etc/evil": b"x"}), "not a relative path"),
        (zip_of({"a": b"x", "./a": b"y"}), "duplicate"),
        (zip_of({"a": b"x"}, link="evil"), "symbolic link"),
        (zip_of({"a": b"x" * 9999})[:60], "corrupted"),
    ],
    ids=["above", "absolute", "twice", "link", "corrupted"],  # the bytes hold the time of their making
)
def test_a_hostile_or_corrupted_zip_is_refused(tmp_path, content, message):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(InputError, match=message):
        unpack(tmp_path / "archive", tmp_path / "out", QUIET)
    assert not list(tmp_path.rglob("evil")) and not Path("/etc/evil").exists()


def sparse(name: str) -> tuple:
    info, content = entry(name, content=b"x" * 512)
    info.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(1 << 40)}
    return info, content


HOSTILE = {
    "absolute": ([entry("/etc/evil", content=b"x")], "not a relative path"),
    "parent": ([entry("../evil", content=b"x")], "not a relative path"),
    "parent inside": ([entry("bolt/../../evil", content=b"x")], "not a relative path"),
    "parent folder": ([entry("../evil", tarfile.DIRTYPE)], "not a relative path"),
    "windows": ([entry("C:\\evil", content=b"x")], "not a relative path"),
    "windows parent": ([entry("..\\evil", content=b"x")], "not a relative path"),
    "link out": ([entry("bolt/l", tarfile.SYMTYPE, "../../evil")], "a symbolic link"),
    "absolute link": ([entry("l", tarfile.SYMTYPE, "/etc/passwd")], "a symbolic link"),
    "write through a link": (
        [entry("l", tarfile.SYMTYPE, "../.."), entry("l/evil", content=b"x")],
        "'l' is a symbolic link",
    ),
    "chain of links": (
        [entry("a", tarfile.SYMTYPE, "."),
         entry("b", tarfile.SYMTYPE, "a/.."), entry("b/evil", content=b"x")],
        "'a' is a symbolic link",
    ),
    "hard link out": ([entry("l", tarfile.LNKTYPE, "../secret")], "not a relative path"),
    "absolute hard link": ([entry("l", tarfile.LNKTYPE, "/etc/passwd")], "not a relative path"),
    "hard link forward": ([entry("l", tarfile.LNKTYPE, "later")], "not an earlier file"),
    "hard link to itself": ([entry("l", tarfile.LNKTYPE, "l")], "not an earlier file"),
    "character device": ([entry("zero", tarfile.CHRTYPE)], "a character device"),
    "block device": ([entry("disk", tarfile.BLKTYPE)], "a block device"),
    "pipe": ([entry("pipe", tarfile.FIFOTYPE)], "a named pipe"),
    "unknown": ([entry("odd", b"Z")], "unknown type"),
    "sparse": ([sparse("hole")], "sparse"),
    "twice": ([entry("readme.txt", content=b"x")], "duplicate"),
    "twice by another name": ([entry("./bolt/.././readme.txt", content=b"x")], "not a relative path"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("mode", ["w", "w:xz"])
def test_hostile_archives_leave_nothing(card, site, tmp_path, name, mode):
    members, message = HOSTILE[name]
    (tmp_path / "secret").write_bytes(b"secret")
    files = {k: v for k, v in tiny_files().items() if mode == "w" or k != "readme.txt" or "twice" in name}
    site.content = tar_of(files, *members, mode=mode)
    folder = tmp_path / "in" / "tiny"
    fails(
        card, folder, InputError, f"not unpacked.*{message}", archive_of(card, site.url, sha256(site.content))
    )
    assert set(tree(tmp_path)) == {"secret", "in/tiny.download/tiny.tar"}
    assert not list(tmp_path.rglob("evil")) and not Path("/etc/evil").exists()


def test_nothing_is_more_privileged_than_the_user_made_it(tmp_path):
    info, content = entry("tool.png", content=b"x")
    info.mode, info.uid, info.gid = 0o7777, 0, 0
    (tmp_path / "a.tar").write_bytes(tar_of({}, (info, content)))
    unpack(tmp_path / "a.tar", tmp_path / "out", QUIET)
    mode = (tmp_path / "out" / "tool.png").stat().st_mode
    assert mode & 0o7000 == 0 and mode & 0o022 == 0


def test_an_archive_that_would_fill_the_disk_is_stopped_before(tmp_path, monkeypatch):
    usage = bytebar.shutil.disk_usage(tmp_path)
    room = bytebar.RESERVE + 1_000_000
    monkeypatch.setattr(bytebar.shutil, "disk_usage", lambda folder: usage._replace(free=room))
    bomb = tmp_path / "bomb"
    bomb.write_bytes(tar_of({"a": bytes(600_000), "b": bytes(600_000)}, mode="w:xz"))
    assert bomb.stat().st_size < 2000
    with pytest.raises(InputError, match="more than the disk"):
        unpack(bomb, tmp_path / "out", QUIET)
    assert not (tmp_path / "out" / "b").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive" * 1000, TINY[:100_000], tar_of(tiny_files(), mode="w:xz")[:100_000],
     tar_of(tiny_files(), mode="w:gz")[:100_000], TINY[:1000] + bytes(24), tar_of({})],
    ids=["empty", "text", "cut tar", "cut xz", "cut gz", "cut entry", "no files"],
)  # fmt: skip
def test_corrupted_archives_are_named_even_if_their_checksum_was_asked_for(card, site, tmp_path, content):
    site.content = content
    archive = archive_of(card, site.url, sha256(content))
    fails(card, tmp_path / "tiny", InputError, "tiny.tar (is corrupted or not a tar|has no folder)", archive)
