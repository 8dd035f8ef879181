"""Cache entries: built once, file by file, with concurrent processes and after any interruption."""

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

from iufbench.data.cache import array_store, entry
from iufbench.data.cache.array_store import PART, SAMPLE, CacheUnusable, obtain, remove
from iufbench.data.cache.entry import MANIFEST, Spec, problem_of
from iufbench.support.locks import NAME as LOCK

FILE, PIECE = 40, 16
ROWS = 3 * FILE + 5
SPEC = Spec("images", "toy", {"root": "/toy"}, "a" * 64, ROWS, (4, 2), "float16")
VALUES = np.arange(ROWS * 8, dtype=np.float16).reshape(ROWS, 4, 2)
NAMES = ["00000.npy", "00001.npy", "00002.npy", "00003.npy"]
SOMEBODY_ELSE = 12345


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(entry, "FILE_ROWS", FILE)


class Source:
    """Gives rows of ``VALUES`` in pieces and remembers which were asked for."""

    def __init__(self, values: np.ndarray = VALUES) -> None:
        self.values, self.asked = values, []

    def __call__(self, rows):
        self.asked.append((rows[0], len(rows)))
        return (self.values[list(rows[i : i + PIECE])] for i in range(0, len(rows), PIECE))


def values_of(found):
    return np.stack([found[i] for i in range(len(found))])


def made(folder, spec=SPEC, values=VALUES):
    """The entry, built by this call, and the messages."""
    notes, source = Notes(), Source(values)
    assert np.array_equal(values_of(obtain(folder, spec, source, notes)), values)
    assert source.asked == [(0, FILE), (FILE, FILE), (2 * FILE, FILE), (3 * FILE, 5)]
    return notes.text


def only_entry_in(folder):
    (place,) = (folder / "images").iterdir()
    assert sorted(p.name for p in place.iterdir()) == [LOCK, *NAMES, MANIFEST]
    return place


def test_an_entry_is_made_once_and_then_mapped(tmp_path):
    said = made(tmp_path)
    assert "2.00 kB" in said and str(tmp_path) in said  # its size is told before it is made
    source, notes = Source(), Notes()
    again = obtain(tmp_path, SPEC, source, notes)
    assert np.array_equal(values_of(again), VALUES) and again[3].dtype == np.float16 and len(again) == ROWS
    assert not again[3].flags.writeable and isinstance(again.files[0].base, np.memmap)
    assert source.asked == [] and notes.said == []
    place = only_entry_in(tmp_path)
    assert np.array_equal(np.concatenate([np.load(place / name) for name in NAMES]), VALUES)


def flip_a_bit(place):
    with open(place / NAMES[1], "r+b") as file:
        file.seek(-9, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def edit_manifest(**changes):
    def edit(place):
        manifest = json.loads((place / MANIFEST).read_text())
        (place / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return edit


def longer(place):
    with open(place / NAMES[2], "ab") as file:
        file.write(b"more")


def other_type(place):
    np.save(place / NAMES[2], np.load(place / NAMES[2]).astype(np.float32))


def pipe(place):
    (place / NAMES[0]).unlink()
    os.mkfifo(place / NAMES[0])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda p: os.truncate(p / NAMES[1], 300), "it is corrupted"),
        (longer, "00002.npy has 772 bytes instead of 768"),
        (other_type, "00002.npy holds float32"),
        (pipe, "00000.npy is not a plain file"),
        (lambda p: (p / NAMES[3]).unlink(), "00003.npy is missing"),
        (lambda p: (p / NAMES[0]).write_bytes(b"no array"), "it is corrupted"),
        (lambda p: (p / MANIFEST).write_text('{"format"'), "it is corrupted"),
        (edit_manifest(format=7, iufbench="9.9"), "another version (iufbench 9.9, format 7"),
        (edit_manifest(rows=4), "does not match its name"),
        (edit_manifest(files=[{"name": "../x", "rows": FILE}]), "manifest.json is corrupted"),
        (edit_manifest(files=3), "it is corrupted"),
    ],
)
def test_a_corrupted_entry_is_reported_and_rebuilt(tmp_path, harm, reason):
    made(tmp_path)
    place = SPEC.place(tmp_path)
    assert problem_of(place) == ""
    harm(place)
    said = made(tmp_path)
    assert reason in said and "rebuilt" in said
    assert problem_of(place) == ""
    only_entry_in(tmp_path)


def test_a_changed_bit_is_found_when_all_is_read(tmp_path):
    made(tmp_path)
    place = SPEC.place(tmp_path)
    flip_a_bit(place)
    assert problem_of(place) == "the content of 00001.npy is corrupted"
    with pytest.raises(CacheUnusable, match=r"is not used: the content of 00001\.npy is corrupted"):
        obtain(tmp_path, SPEC, Source(), Notes(), compare=True)


def test_a_comparison_with_the_data_takes_a_sample(tmp_path):
    made(tmp_path)
    source, notes = Source(), Notes()
    assert np.array_equal(values_of(obtain(tmp_path, SPEC, source, notes, compare=True)), VALUES)
    ((_, size),) = source.asked
    assert size == SAMPLE and "32 rows" in notes.text
    with pytest.raises(CacheUnusable, match=r"row \d+ does not match the data"):
        obtain(tmp_path, SPEC, Source(VALUES + 1), Notes(), compare=True)


def give_away(place):
    """Change the owner, as far as the system permits."""
    for path in (place, *place.iterdir()):
        os.chown(path, SOMEBODY_ELSE, -1)


@pytest.mark.parametrize(
    "share",
    [
        pytest.param(
            give_away, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
        ),
        lambda place: place.chmod(0o777),
        lambda place: (place / NAMES[1]).chmod(0o666),
        lambda place: (place / MANIFEST).chmod(0o664),
    ],
)
def test_what_others_can_write_is_compared_with_the_data(tmp_path, share):
    made(tmp_path)
    share(SPEC.place(tmp_path))
    source = Source()
    assert np.array_equal(values_of(obtain(tmp_path, SPEC, source, Notes())), VALUES)
    assert [size for _, size in source.asked] == [SAMPLE]
    with pytest.raises(CacheUnusable, match="does not match the data"):
        obtain(tmp_path, SPEC, Source(VALUES + 1), Notes())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_unfinished_entry_of_another_user_is_left_alone(tmp_path):
    made(tmp_path)
    place = SPEC.place(tmp_path)
    (place / NAMES[2]).unlink()
    give_away(place)
    before = sorted(p.name for p in place.iterdir())
    with pytest.raises(CacheUnusable, match="unfinished and belongs to user 12345"):
        obtain(tmp_path, SPEC, Source(), Notes())
    assert sorted(p.name for p in place.iterdir()) == before


def test_nothing_is_written_through_links(tmp_path):
    """A shared folder in which another user has placed links to files of this user."""
    target = tmp_path / "precious"
    target.mkdir()
    for name in ("images", f"images/{SPEC.name}"):
        cache = tmp_path / name.replace("/", "-")
        (cache / name).parent.mkdir(parents=True)
        (cache / name).symlink_to(target)
        with pytest.raises(CacheUnusable, match="it is a symbolic link"):
            obtain(cache, SPEC, Source(), Notes())
    place = SPEC.place(tmp_path / "third")
    place.mkdir(parents=True)
    (place / f"{NAMES[0]}{PART}").symlink_to(target / "file")
    (place / LOCK).symlink_to(target / "lock")
    with pytest.raises(CacheUnusable, match="symbolic links"):
        obtain(tmp_path / "third", SPEC, Source(), Notes())
    (place / LOCK).unlink()
    made(tmp_path / "third")
    assert list(target.iterdir()) == []


def test_a_folder_that_everybody_can_change_is_not_used(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images").chmod(0o777)
    with pytest.raises(CacheUnusable, match="other users can write to it"):
        obtain(tmp_path, SPEC, Source(), Notes())
    (tmp_path / "images").chmod(0o1777)  # everybody may add to it, and change what is his own
    made(tmp_path)


def test_changed_files_give_a_new_entry_and_the_old_one_goes(tmp_path):
    made(tmp_path)
    held = obtain(tmp_path, SPEC, Source(), Notes())
    changed = replace(SPEC, version="b" * 64)
    assert "have changed" in made(tmp_path, changed, VALUES + 1)
    assert only_entry_in(tmp_path) == changed.place(tmp_path)
    assert np.array_equal(values_of(held), VALUES)  # whoever has it open goes on reading


def test_other_entries_stay(tmp_path):
    made(tmp_path)
    other = replace(SPEC, identity={"root": "/other"})
    assert "have changed" not in made(tmp_path, other, VALUES + 1)
    assert np.array_equal(values_of(obtain(tmp_path, SPEC, Source(), Notes())), VALUES)


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
    with largest_file(300), pytest.raises(CacheUnusable, match="File too large"):
        obtain(tmp_path, SPEC, Source(), Notes())
    assert list((tmp_path / "images").iterdir()) == []
    made(tmp_path)


def test_too_little_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(array_store, "free_space", lambda folder: 1000)
    source = Source()
    with pytest.raises(CacheUnusable, match=r"needs 2\.00 kB in .*, where 1\.00 kB are available"):
        obtain(tmp_path, SPEC, source, Notes())
    assert source.asked == [] and list((tmp_path / "images").iterdir()) == []


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

    for function in ("mkdir", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, function, refused)
    assert np.array_equal(values_of(obtain(tmp_path, SPEC, Source(), Notes())), VALUES)
    with pytest.raises(CacheUnusable, match="Read-only file system"):
        obtain(tmp_path, replace(SPEC, rows=5), Source(VALUES[:5]), Notes())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_unusable_unless_the_entry_is_there(tmp_path):
    made(tmp_path)
    (tmp_path / "images").chmod(0o555)
    try:
        assert np.array_equal(values_of(obtain(tmp_path, SPEC, Source(), Notes())), VALUES)
        with pytest.raises(CacheUnusable, match="Permission denied"):
            obtain(tmp_path, replace(SPEC, rows=5), Source(VALUES[:5]), Notes())
    finally:
        (tmp_path / "images").chmod(0o755)


def ends_with(error, after):
    """A source that fails after so many rows."""
    left = [after]

    def produce(rows):
        for row in rows:
            if not left[0]:
                raise error
            left[0] -= 1
            yield VALUES[row : row + 1]

    return produce


@pytest.mark.parametrize("error", [RuntimeError("no such image"), KeyboardInterrupt()])
def test_a_build_that_ends_in_its_first_file_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        obtain(tmp_path, SPEC, ends_with(error, FILE - 1), Notes())
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("no such image"), KeyboardInterrupt()])
def test_a_later_build_resumes_after_the_last_complete_file(tmp_path, error):
    with pytest.raises(type(error)):
        obtain(tmp_path, SPEC, ends_with(error, 2 * FILE + 7), Notes())
    place = SPEC.place(tmp_path)
    assert sorted(p.name for p in place.iterdir()) == [LOCK, *NAMES[:2], MANIFEST]
    (place / f"{NAMES[2]}{PART}").write_bytes(b"half a file, as a kill leaves it")
    source, notes = Source(), Notes()
    assert np.array_equal(values_of(obtain(tmp_path, SPEC, source, notes)), VALUES)
    assert source.asked == [(2 * FILE, FILE), (3 * FILE, 5)] and f"{2 * FILE} of them exist" in notes.text
    only_entry_in(tmp_path)


@pytest.mark.parametrize("values", [VALUES[:, :1], VALUES[:7], np.concatenate([VALUES, VALUES])])
def test_a_source_that_gives_other_rows_is_a_fault(tmp_path, values):
    with pytest.raises(ValueError, match="toy"):
        obtain(tmp_path, SPEC, lambda rows: iter([values]), Notes())
    assert list((tmp_path / "images").iterdir()) == []


BUILDER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_array_store import *

entry.FILE_ROWS = FILE

class Told(Source):
    def __call__(self, rows):
        print("building", rows[0], flush=True)
        sys.stdin.readline()
        return super().__call__(rows)

class Loud(Notes):
    def say(self, text, level=0):
        if "waiting" in text:
            print("waiting", flush=True)

found = obtain(Path({folder!r}), SPEC, Told(), Loud())
assert np.array_equal(values_of(found), VALUES)
"""


@pytest.fixture
def builder(tmp_path):
    """Starts a process that builds the entry, a file for every line it is sent."""
    code = BUILDER.format(path=sys.path, folder=str(tmp_path))
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
    lines = first.communicate("\n" * 4, timeout=60)[0].splitlines()
    assert lines == ["building 40", "building 80", "building 120"]
    assert second.communicate(timeout=60)[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)
    only_entry_in(tmp_path)


def test_when_a_builder_is_killed_the_waiting_process_continues(tmp_path, builder):
    first = builder()
    assert first.stdout.readline() == "building 0\n"
    second = builder()
    assert second.stdout.readline() == "waiting\n"
    first.stdin.write("\n" * 2)
    first.stdin.flush()
    assert [first.stdout.readline() for _ in range(2)] == ["building 40\n", "building 80\n"]
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "building 80\n"
    second.communicate("\n" * 2, timeout=60)
    assert second.returncode == 0
    only_entry_in(tmp_path)


def test_what_is_being_built_is_not_removed(tmp_path, builder):
    process, place = builder(), SPEC.place(tmp_path)
    assert process.stdout.readline() == "building 0\n"
    assert not remove(place) and place.is_dir()
    process.kill()
    process.wait()
    assert remove(place) and list((tmp_path / "images").iterdir()) == []
