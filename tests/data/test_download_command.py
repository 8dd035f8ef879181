"""``iufbench data download`` through the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from download_site import (
    sha256,
    tar_of,
    whole,
)

from iufbench.cards.datasets import dataset_cards
from iufbench.cli.main import main


def visa_archive() -> bytes:
    return tar_of({f"{name}/x.txt": b"x" for name in dataset_cards()["visa"].objects})


def invoke(*arguments):
    return CliRunner().invoke(main, ["data", "download", *map(str, arguments)])


def test_the_command_ends_with_what_to_do_next(site, tmp_path):
    site.content = visa_archive()
    options = ["--url", site.url, "--sha256", sha256(site.content), "--accept-licence"]
    folder = tmp_path / "my visa"
    done = invoke("visa", folder, *options)
    assert done.exit_code == 0, done.output
    assert "licensed under CC BY 4.0" in done.stderr and "verify: " in done.stderr
    assert done.stdout.splitlines() == [
        f"--data-root '{folder}'",
        f"next: iufbench data check '{folder}' --dataset visa",
    ]
    # The folder is not the complete VisA, so it is neither taken for it nor written over.
    again = invoke("visa", folder, *options)
    assert again.exit_code == 2 and "move it away" in again.stderr and len(site.ranges) == 1
    quiet = invoke("visa", tmp_path / "b", *options, "-q")
    assert quiet.exit_code == 0 and "verify" not in quiet.stderr and "--data-root" in quiet.stdout


def test_a_complete_folder_is_left_alone(visa_tree, site):
    stamp = visa_tree.stat().st_mtime_ns
    done = invoke("visa", visa_tree, "--url", site.url)
    assert done.exit_code == 0 and "nothing to do" in done.stderr, done.output
    assert f"--data-root {visa_tree}" in done.stdout
    assert site.ranges == [] and visa_tree.stat().st_mtime_ns == stamp


def test_without_accepting_the_licence_nothing_happens(site, tmp_path):
    done = invoke("mvtec", tmp_path / "mvtec", "--url", site.url)
    assert done.exit_code == 2 and "--accept-licence" in done.stderr
    assert "MVTec AD is licensed under CC BY-NC-SA 4.0" in done.stderr
    assert site.ranges == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("elpv", "pip install"),
        ("vise", "did you mean 'visa'"),
        ("coco", r"available: adam3d, .*mvtec.*, visa\)"),
    ],
)
def test_other_data_sets_are_not_downloaded(tmp_path, name, message):
    done = invoke(name, tmp_path / "x", "--accept-licence")
    assert done.exit_code == 2 and re.search(message, done.stderr)


def start(*arguments, **pipes):
    # The signal's handler is set anew: in the background of a shell SIGINT is ignored, and inherited so.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from iufbench.cli.main import main; main(['data', 'download', *sys.argv[1:]])"
    )
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **pipes)


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_at_a_terminal_the_licence_is_a_question(site, tmp_path, answer, code):
    site.content = visa_archive()
    ours, theirs = os.openpty()
    options = ["--url", site.url, "--sha256", sha256(site.content)]
    process = start("visa", tmp_path / "visa", *options, stdin=theirs, stderr=subprocess.PIPE, text=True)
    os.write(ours, f"{answer}\n".encode())
    stderr = process.communicate(timeout=60)[1]
    os.close(ours), os.close(theirs)
    assert process.returncode == code, stderr
    assert "Do you accept this licence? [y/N]" in stderr and "CC BY 4.0" in stderr
    assert (tmp_path / "visa").exists() == (answer == "y") and len(site.ranges) == (answer == "y")


def test_ctrl_c_keeps_what_was_received_and_says_how_to_resume(site, tmp_path):
    site.content = visa_archive()
    released = threading.Event()

    def stall(handler, content):
        whole(9000)(handler, content)
        handler.wfile.flush()
        released.wait(60)

    site.behave(stall, whole())
    folder = tmp_path / "visa"
    options = ["--url", site.url, "--sha256", sha256(site.content), "--accept-licence"]
    process = start("visa", folder, *options, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "visa.download" / f"VisA_20220922.tar.{sha256(site.content)[:8]}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size == 9000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    released.set()
    assert process.returncode == 130
    assert f"kept in {part.parent}; repeat the command" in stderr and "Traceback" not in stderr
    assert part.read_bytes() == site.content[:9000] and not folder.exists()
    assert invoke("visa", folder, *options).exit_code == 0
    assert site.ranges == [None, "bytes=9000-"]
