"""Downloads from a faulty server: resumed, bounded, verified, never partially used."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from download_site import (
    OBJECTS,
    QUIET,
    TINY,
    archive_of,
    changed,
    chunked,
    entry,
    fails,
    get,
    head,
    part_of,
    png,
    redirect_once,
    sha256,
    status,
    tar_of,
    tiny_files,
    tree,
    whole,
    without_ranges,
)
from notes import Notes

from iufbench.cards.datasets import dataset_cards
from iufbench.data.datasets import open_dataset
from iufbench.data.download.download import (
    Archive,
    archives_of,
    complete_root,
    download_dataset,
    downloadable,
)
from iufbench.data.download.fetch import fetch
from iufbench.support import bytebar
from iufbench.support.errors import InputError, RunError
from iufbench.support.locks import locked
from iufbench.support.progress import Progress


def test_a_data_set_arrives_complete_and_is_readable(card, site, tmp_path):
    folder = tmp_path / "below" / "tiny"
    root, pauses = get(card, folder)
    assert root == folder and pauses == [] and site.ranges == [None]
    assert tree(folder) == tiny_files()
    assert open_dataset("tiny", OBJECTS, root).counts() == card.counts
    assert tree(tmp_path / "below" / "tiny.download") == {"tiny.tar": TINY}
    assert complete_root(card, folder) == folder


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_download_is_resumed(card, site, tmp_path, reset):
    site.behave(*[whole(100_000, reset)] * 3, whole())
    _, pauses = get(card, tmp_path / "tiny")
    assert pauses == [1, 2, 4]
    assert site.ranges == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert tree(tmp_path / "tiny") == tiny_files()


def test_attempts_are_bounded_and_the_next_call_resumes(card, site, tmp_path):
    site.behave(whole(10_000))
    folder = tmp_path / "tiny"
    pauses = fails(card, folder, RunError, "ended early.*6 attempts.*repeat the command")
    assert pauses == [1, 2, 4, 8, 16] and len(site.ranges) == 6
    assert part_of(folder).read_bytes() == TINY[:60_000]
    site.behave(whole())
    get(card, folder)
    assert site.ranges == ["bytes=60000-"] and tree(folder) == tiny_files()


def test_an_attempt_that_gets_far_earns_new_patience(site, tmp_path):
    site.content = np.random.default_rng(1).bytes(10_000_000)
    site.behave(whole(1_200_000))
    pauses: list[float] = []
    fetch(site.url, tmp_path / "part", len(site.content), QUIET, pauses.append)
    assert pauses == [1] * 8
    assert (tmp_path / "part").read_bytes() == site.content


def test_a_server_that_ignores_ranges_is_read_from_the_start(card, site, tmp_path, capsys):
    site.behave(without_ranges(100_000), without_ranges(150_000), without_ranges())
    _, pauses = get(card, tmp_path / "tiny", Progress())
    assert pauses == [1, 2] and site.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert tree(tmp_path / "tiny") == tiny_files()
    assert "cannot resume: starting over" in capsys.readouterr().err


@pytest.mark.parametrize(
    "odd",
    [
        lambda h, c: head(h, 206, Content_Range=f"bytes 7-{len(c) - 1}/{len(c)}", Content_Length=0),
        lambda h, c: head(h, 206, Content_Length=0),
        status(416),
        status(416, Content_Range="bytes */5"),
        status(503, Retry_After=1),
        status(429),
        lambda h, c: h.wfile.write(b"nonsense\r\n\r\n"),
        lambda h, c: None,
    ],
)
def test_odd_answers_to_a_resumed_download_cost_one_attempt(card, site, tmp_path, odd):
    site.behave(whole(100_000), odd, whole())
    _, pauses = get(card, tmp_path / "tiny")
    assert pauses == [1, 2] and tree(tmp_path / "tiny") == tiny_files()


def test_a_part_that_is_too_long_is_thrown_away(card, site, tmp_path):
    part = part_of(tmp_path / "tiny")
    part.parent.mkdir()
    part.write_bytes(TINY + b"more")
    get(card, tmp_path / "tiny")
    assert site.ranges == [None] and tree(tmp_path / "tiny") == tiny_files()


@pytest.mark.parametrize("known", [True, False])
def test_a_part_that_is_complete_is_not_fetched_again(card, site, tmp_path, known):
    part = part_of(tmp_path / "tiny")
    part.parent.mkdir()
    part.write_bytes(TINY)
    site.behave(status(416, Content_Range=f"bytes */{len(TINY)}"))
    get(card, tmp_path / "tiny", archive=archive_of(card, site.url, None if known else sha256(TINY)))
    assert site.ranges == ([] if known else [f"bytes={len(TINY)}-"])
    assert tree(tmp_path / "tiny") == tiny_files()


def test_a_file_with_a_wrong_checksum_is_moved_aside_and_not_used(card, site, tmp_path):
    folder = tmp_path / "tiny"
    site.content = changed(TINY)
    fails(
        card,
        folder,
        RunError,
        f"unexpected file .sha256 {sha256(changed(TINY))} instead of {sha256(TINY)}.*tiny.tar.wrong",
    )
    assert tree(tmp_path / "tiny.download") == {"tiny.tar.wrong": changed(TINY)}
    site.content = TINY
    get(card, folder)
    assert site.ranges == [None, None] and tree(folder) == tiny_files()


def test_another_size_is_refused_before_anything_is_received(card, site, tmp_path):
    site.content = b"<html>sign in to the hotel's network</html>"
    fails(card, tmp_path / "tiny", RunError, "has 43 bytes, the archive should have .* a different file")
    assert list(tmp_path.iterdir()) == []
    site.content = TINY
    site.behave(whole(100_000), whole(declare=7))
    fails(card, tmp_path / "tiny", RunError, f"has {len(TINY) + 7} bytes")
    assert part_of(tmp_path / "tiny").stat().st_size == 100_000


def test_a_wrong_size_that_was_not_announced_is_found_at_the_end(card, site, tmp_path):
    site.behave(chunked(lambda content: content + b"more"))
    fails(card, tmp_path / "tiny", RunError, "sends more than")
    assert not part_of(tmp_path / "tiny").exists()
    site.behave(chunked(lambda content: content[:-1]))
    assert fails(card, tmp_path / "tiny", RunError, "ended early") == [1, 2, 4, 8, 16]
    site.behave(chunked(lambda content: content[:70_000], end=False), chunked())
    assert get(card, tmp_path / "tiny")[1] == [1]
    assert tree(tmp_path / "tiny") == tiny_files()


def test_a_permanent_failure_is_not_retried_and_the_message_says_what_to_do(card, site, tmp_path):
    site.behave(status(404))
    advice = f"404 Not Found.*{card.home}.*--url.*tiny.download/tiny.tar"
    assert fails(card, tmp_path / "tiny", RunError, advice) == []
    assert len(site.ranges) == 1 and list(tmp_path.iterdir()) == []


def test_redirects_are_followed_but_not_for_ever(card, site, tmp_path):
    site.behave(redirect_once)
    get(card, tmp_path / "tiny")
    assert tree(tmp_path / "tiny") == tiny_files()
    site.behave(status(302, Location="/tiny.tar"))
    assert fails(card, tmp_path / "other", RunError, "302 .*infinite loop") == []
    site.behave(status(302, Location="file:///etc/passwd"))
    assert fails(card, tmp_path / "other", RunError, "302") == []


def test_a_refused_connection_is_retried_a_few_times(card, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/tiny.tar"
        assert fails(card, tmp_path / "tiny", RunError, "no connection", archive_of(card, url)) == [
            1,
            2,
            4,
            8,
            16,
        ]


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/a.tar", "file:///etc/passwd", "a.tar", "http://127.0.0.1:x/"]
)
def test_addresses_that_are_invalid_are_user_errors(card, tmp_path, url):
    fails(card, tmp_path / "tiny", InputError, "address", archive_of(card, url))


def test_a_mirror_must_have_the_official_archive_and_a_checksum_replaces_it(card, site, tmp_path):
    mirror = archive_of(card, "https://mirror.example.org/x.tar")
    assert mirror == Archive("https://mirror.example.org/x.tar", "tiny.tar", len(TINY), sha256(TINY))
    site.content = tar_of(tiny_files(), entry("more.txt", content=b"more"), mode="w:gz")
    get(card, tmp_path / "tiny", archive=archive_of(card, site.url, sha256(site.content).upper()))
    assert tree(tmp_path / "tiny") == {**tiny_files(), "more.txt": b"more"}
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        archive_of(card, site.url, "abc")


def test_official_archives_are_those_of_the_cards():
    for name in ("mvtec", "visa"):
        card = dataset_cards()[name]
        official = archive_of(card)
        assert official.url.startswith("https://") and official.name in official.url
        assert (official.size, official.sha256) == (card.download["bytes"], card.download["sha256"])


def test_official_archives_are_those_that_were_researched():
    facts = json.loads((Path(__file__).parent / "facts" / "dataset_facts.json").read_text())
    for name, key in (("mvtec", "mvtec_ad"), ("visa", "visa")):
        card, known = dataset_cards()[name], facts[key]
        archive = archive_of(card)
        assert (archive.name, archive.size, archive.sha256) == (
            known["archive"],
            known["bytes"],
            known["sha256"],
        )
        assert card.home == known["home"] and known["licence"].startswith(card.licence)


def test_progress_is_plain_lines_away_from_a_terminal(card, tmp_path, capsys):
    get(card, tmp_path / "tiny", Progress())
    lines = capsys.readouterr().err.splitlines()
    assert any(re.fullmatch(r"download: [\d.]+ kB of [\d.]+ kB", line) for line in lines)
    assert all("\r" not in line for line in lines) and len(lines) < 40


def test_a_small_disk_is_noticed_before_anything_is_sent(card, site, tmp_path, monkeypatch):
    usage = bytebar.shutil.disk_usage(tmp_path)
    room = bytebar.RESERVE + 2 * len(TINY)  # the archive would fit, archive and images do not
    monkeypatch.setattr(bytebar.shutil, "disk_usage", lambda folder: usage._replace(free=room))
    fails(
        card,
        tmp_path / "tiny",
        InputError,
        r"needs .* in .*/tiny.download, where .* are available: free some space",
    )
    assert site.ranges == [] and list(tmp_path.iterdir()) == []
    part = part_of(tmp_path / "tiny")  # with half of it here, the rest fits
    part.parent.mkdir()
    part.write_bytes(TINY[: len(TINY) // 2])
    get(card, tmp_path / "tiny")
    # Of an archive nobody knows, the server tells the size.
    monkeypatch.setattr(bytebar.shutil, "disk_usage", lambda folder: usage._replace(free=bytebar.RESERVE + 9))
    fails(card, tmp_path / "b", InputError, "free some space", archive_of(card, site.url, sha256(TINY)))


def test_a_full_disk_in_the_middle_is_no_network_error(card, site, tmp_path):
    part = part_of(tmp_path / "tiny")
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    pauses = fails(card, tmp_path / "tiny", RunError, "cannot write .*No space left")
    assert pauses == []


def test_an_archive_put_there_by_hand_is_used_if_it_is_the_right_one(card, site, tmp_path):
    work = tmp_path / "tiny.download"
    work.mkdir()
    (work / "tiny.tar").write_bytes(changed(TINY))
    fails(card, tmp_path / "tiny", InputError, "tiny.tar is not the expected archive .sha256")
    assert (work / "tiny.tar").read_bytes() == changed(TINY)
    (work / "tiny.tar").write_bytes(TINY)
    get(card, tmp_path / "tiny")
    assert site.ranges == [] and tree(tmp_path / "tiny") == tiny_files()


def test_what_a_killed_process_left_does_not_get_into_the_data(card, tmp_path):
    left = tmp_path / "tiny.download" / "unpacked" / "bolt" / "train" / "good" / "001.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    get(card, tmp_path / "tiny")
    assert tree(tmp_path / "tiny") == tiny_files()


def test_two_processes_do_not_write_the_same_file(card, site, tmp_path):
    work = tmp_path / "tiny.download"
    work.mkdir()
    with locked(work):
        fails(card, tmp_path / "tiny", RunError, "another process is downloading")
    assert site.ranges == []
    get(card, tmp_path / "tiny")


def test_only_nothing_or_the_complete_data_set_is_accepted_at_the_folder(card, tmp_path):
    folder = tmp_path / "tiny"
    assert complete_root(card, folder) is None
    folder.mkdir()
    assert complete_root(card, folder) is None
    (folder / "notes.md").write_text("mine")
    with pytest.raises(InputError, match=r"not hold the complete Tiny .there is no folder for each object"):
        complete_root(card, folder)
    for name, content in tiny_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert complete_root(card, folder) == folder
    (folder / "bolt/train/good/001.png").write_bytes(png(3))
    with pytest.raises(InputError, match="numbers of images differ"):
        complete_root(card, folder)
    (folder / "bolt/ground_truth/scratch/000_mask.png").unlink()
    with pytest.raises(InputError, match="not hold the complete Tiny"):
        complete_root(card, folder)


def test_an_empty_folder_and_a_link_to_a_place_elsewhere_are_filled(card, tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "tiny").symlink_to(tmp_path / "big")
    root, _ = get(card, tmp_path / "tiny")
    assert root == tmp_path / "big" and tree(tmp_path / "tiny") == tiny_files()
    assert (tmp_path / "tiny").is_symlink()


def sends(content: bytes):
    return lambda handler, _: whole()(handler, content)


def test_further_addresses_are_tried_in_order(card, site, tmp_path):
    """The first is gone, the second has a different file, the third is correct."""
    archive = Archive(site.url, "tiny.tar", None, sha256(TINY), (f"{site.url}?b", f"{site.url}?c"))
    site.behave(status(404), sends(b"another file"), whole())
    notes = Notes()
    download_dataset(card, tmp_path / "tiny", [archive], notes, lambda seconds: None)
    assert tree(tmp_path / "tiny") == tiny_files() and len(site.ranges) == 3
    said = notes.text
    assert "404" in said and "served an unexpected file" in said and f"trying {site.url}?c" in said


def test_a_data_set_in_several_archives_arrives_whole(card, site, tmp_path):
    parts = [tar_of({k: v for k, v in tiny_files().items() if k.startswith(o)}) for o in OBJECTS]
    site.behave(sends(parts[0]), sends(parts[1]))
    official = [{"url": site.url, "archive": f"{o}.tar", "sha256": sha256(p)} for o, p in zip(OBJECTS, parts)]
    several = replace(card, download={"archives": official})
    root = download_dataset(several, tmp_path / "tiny", archives_of(several), QUIET, lambda seconds: None)
    assert open_dataset("tiny", OBJECTS, root).counts() == card.counts
    with pytest.raises(InputError, match=r"a single archive, but .* has 2"):
        archives_of(several, site.url)


def test_every_card_with_an_archive_has_a_checksum_of_it():
    for card in downloadable().values():
        for archive in archives_of(card):
            assert re.fullmatch("[0-9a-f]{64}", archive.sha256) and archive.url.startswith("https://")
