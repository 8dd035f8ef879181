"""Entries of the cache: made once, whole or not at all, whoever else is at it and however it ends."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from notes import Notes

from iufbench.data.cache import array_store
from iufbench.data.cache.array_store import (
    CHUNK,
    DATA,
    ENTRY,
    CacheUnusable,
    Spec,
    obtain,
    part_of,
    problem_of,
    remove,
)

ROWS = 3 * CHUNK + 5
SPEC = Spec("images", "toy", {"root": "/toy"}, "a" * 64, ROWS, (4, 2), "float16")
VALUES = np.arange(ROWS * 8, dtype=np.float16).reshape(ROWS, 4, 2)


class Source:
    """Gives ``VALUES`` chunk by chunk and remembers where it was asked to start."""

    def __init__(self, values: np.ndarray = VALUES) -> None:
        self.values, self.starts = values, []

    def __call__(self, start):
        self.starts.append(start)
        return (self.values[i : i + CHUNK] for i in range(start, len(self.values), CHUNK))


def made(folder, spec=SPEC, values=VALUES):
    """The entry, made by this call, and what was said."""
    notes, source = Notes(), Source(values)
    found = obtain(folder, spec, source, notes)
    assert np.array_equal(found, values) and source.starts == [0]
    return notes.text


def only_entry_in(folder):
    (entry,) = (folder / "images").iterdir()
    assert sorted(p.name for p in entry.iterdir()) == [DATA, ENTRY, "lock"]
    return entry


def test_an_entry_is_made_once_and_then_mapped(tmp_path):
    said = made(tmp_path)
    assert "3.15 kB" in said and str(tmp_path) in said  # its size is told before it is made
    source, notes = Source(), Notes()
    again = obtain(tmp_path, SPEC, source, notes)
    assert isinstance(again, np.memmap) and not again.flags.writeable
    assert np.array_equal(again, VALUES) and again.dtype == np.float16
    assert source.starts == [] and notes.said == []
    only_entry_in(tmp_path)


def flip_a_bit(place):
    with open(place / DATA, "r+b") as file:
        file.seek(777)
        byte = file.read(1)[0]
        file.seek(777)
        file.write(bytes([byte ^ 4]))


def edit_entry(**changes):
    def edit(place):
        entry = json.loads((place / ENTRY).read_text())
        (place / ENTRY).write_text(json.dumps({**entry, **changes}))

    return edit


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip_a_bit, "content is damaged"),
        (lambda p: os.truncate(p / DATA, 100), "100 bytes instead of 3152"),
        (lambda p: (p / DATA).unlink(), "missing"),
        (lambda p: (p / ENTRY).write_text('{"format"'), "damaged"),
        (lambda p: (p / ENTRY).unlink(), "damaged"),
        (edit_entry(format=7, iufbench="9.9"), "another version (iufbench 9.9, format 7"),
        (edit_entry(checksums=[1, 2]), "content is damaged"),
        (edit_entry(rows=4), "does not say what its name says"),
    ],
)
def test_a_damaged_entry_is_said_and_made_anew(tmp_path, harm, reason):
    made(tmp_path)
    place = SPEC.place(tmp_path)
    assert problem_of(place) == ""
    harm(place)
    assert reason in made(tmp_path)
    assert problem_of(place) == ""
    only_entry_in(tmp_path)


def test_changed_files_give_a_new_entry_and_the_old_one_goes(tmp_path):
    made(tmp_path)
    held = obtain(tmp_path, SPEC, Source(), Notes())
    changed = replace(SPEC, version="b" * 64)
    assert "have changed" in made(tmp_path, changed, VALUES + 1)
    assert only_entry_in(tmp_path) == changed.place(tmp_path)
    assert np.array_equal(held, VALUES)  # whoever has it open goes on reading


def test_other_entries_stay(tmp_path):
    made(tmp_path)
    other = replace(SPEC, identity={"root": "/other"})
    assert "have changed" not in made(tmp_path, other, VALUES + 1)
    assert np.array_equal(obtain(tmp_path, SPEC, Source(), Notes()), VALUES)


@contextmanager
def largest_file(size):
    """The system refuses to write files beyond ``size`` bytes, with an OSError as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    with largest_file(2 * CHUNK * SPEC.row_bytes + 3), pytest.raises(CacheUnusable, match="File too large"):
        obtain(tmp_path, SPEC, Source(), Notes())
    assert list((tmp_path / "images").iterdir()) == []
    made(tmp_path)


def test_too_little_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(array_store, "free_space", lambda folder: 1000)
    source = Source()
    with pytest.raises(CacheUnusable, match=r"needs 3\.15 kB in .*, where 1\.00 kB can be used"):
        obtain(tmp_path, SPEC, source, Notes())
    assert source.starts == [] and list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("name", ["cache", "cache/images"])
def test_a_folder_that_cannot_be_made_is_unusable(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file is in the way")
    with pytest.raises(CacheUnusable, match="cannot be used"):
        obtain(tmp_path / "cache", SPEC, Source(), Notes())


def test_a_read_only_disk_is_unusable_unless_the_entry_is_there(tmp_path, monkeypatch):
    made(tmp_path)

    def refused(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for function in ("mkdir", "rename", "unlink", "truncate", "rmdir"):
        monkeypatch.setattr(os, function, refused)
    assert np.array_equal(obtain(tmp_path, SPEC, Source(), Notes()), VALUES)
    with pytest.raises(CacheUnusable, match="Read-only file system"):
        obtain(tmp_path, replace(SPEC, rows=5), Source(VALUES[:5]), Notes())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_unusable_unless_the_entry_is_there(tmp_path):
    made(tmp_path)
    (tmp_path / "images").chmod(0o555)
    try:
        assert np.array_equal(obtain(tmp_path, SPEC, Source(), Notes()), VALUES)
        with pytest.raises(CacheUnusable, match="Permission denied"):
            obtain(tmp_path, replace(SPEC, rows=5), Source(VALUES[:5]), Notes())
    finally:
        (tmp_path / "images").chmod(0o755)


def test_a_fault_of_the_source_goes_through_and_leaves_nothing(tmp_path):
    def broken(start):
        yield VALUES[:CHUNK]
        raise RuntimeError("no such image")

    with pytest.raises(RuntimeError, match="no such image"):
        obtain(tmp_path, SPEC, broken, Notes())
    assert list((tmp_path / "images").iterdir()) == []


def test_after_an_interrupt_it_goes_on_where_it_was(tmp_path):
    def interrupted(start):
        yield VALUES[:CHUNK]
        yield VALUES[CHUNK : 2 * CHUNK]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, SPEC, interrupted, Notes())
    with open(part_of(SPEC.place(tmp_path)) / DATA, "ab") as file:
        file.write(b"half a chunk")  # as a kill would leave it
    source, notes = Source(), Notes()
    assert np.array_equal(obtain(tmp_path, SPEC, source, notes), VALUES)
    assert source.starts == [2 * CHUNK] and f"{2 * CHUNK} of them are there" in notes.text
    only_entry_in(tmp_path)


def test_a_damaged_beginning_is_found_out_at_the_end(tmp_path):
    def interrupted(start):
        yield VALUES[:CHUNK]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(tmp_path, SPEC, interrupted, Notes())
    flip_a_bit(part_of(SPEC.place(tmp_path)))
    source, notes = Source(), Notes()
    assert np.array_equal(obtain(tmp_path, SPEC, source, notes), VALUES)
    assert source.starts == [CHUNK, 0] and "damaged" in notes.text


BUILDER = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_array_store import *

class Told(Source):
    def __call__(self, start):
        print("building", start, flush=True)
        for piece in super().__call__(start):
            sys.stdin.readline()
            yield piece
            print("chunk", flush=True)

class Loud(Notes):
    def say(self, text, level=0):
        if "waiting" in text:
            print("waiting", flush=True)

found = obtain(Path({folder!r}), SPEC, Told(), Loud())
assert np.array_equal(found, VALUES)
"""


@pytest.fixture
def builder(tmp_path):
    """Starts a process that builds the entry, a chunk for every line it is sent."""
    code = BUILDER.format(here=os.path.dirname(__file__), folder=str(tmp_path))
    started = []

    def start() -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path, builder):
    first = builder()
    assert first.stdout.readline() == "building 0\n"
    second = builder()
    assert second.stdout.readline() == "waiting\n"
    assert first.communicate("\n" * 4, timeout=60)[0] == "chunk\n" * 4
    assert second.communicate(timeout=60)[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)
    only_entry_in(tmp_path)


def test_when_a_builder_is_killed_whoever_waits_goes_on(tmp_path, builder):
    first = builder()
    assert first.stdout.readline() == "building 0\n"
    second = builder()
    assert second.stdout.readline() == "waiting\n"
    first.stdin.write("\n" * 2)
    first.stdin.flush()
    assert [first.stdout.readline() for _ in range(2)] == ["chunk\n"] * 2
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == f"building {2 * CHUNK}\n"
    second.communicate("\n" * 2, timeout=60)
    assert second.returncode == 0
    only_entry_in(tmp_path)


def test_what_is_being_built_is_not_removed(tmp_path, builder):
    process, part = builder(), part_of(SPEC.place(tmp_path))
    assert process.stdout.readline() == "building 0\n"
    assert not remove(part) and part.is_dir()
    process.kill()
    process.wait()
    assert remove(part) and list((tmp_path / "images").iterdir()) == []
