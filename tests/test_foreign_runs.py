"""A run directory from somebody else is data: whatever it holds, the others are read, and soon.

``IUFBENCH_FUZZ_SECONDS`` lets the fuzz test go on for so many seconds (CI: 60).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from fake_runs import make_run

from iufbench.cli.main import main
from iufbench.reporting.collect import collect
from iufbench.reporting.store import find_runs

NAMES = ("run.json", "metrics.csv", "scores.csv.gz", "baseline.csv", "train_log.csv")
MIB = 2**20


def edited(path, change):
    """run.json with ``change`` applied to its plain values."""
    info = json.loads((path / "run.json").read_text())
    change(info)
    (path / "run.json").write_text(json.dumps(info))


def many_experiences(info):
    names = [[f"o{k}"] for k in range(3000)]
    info["protocol"]["experiences"] = names


def bomb(size: int) -> bytes:
    """A gzip file of one row that unpacks to ``size`` bytes, made without unpacking it."""
    return b"".join([gzip.compress(b"0" * 16 * MIB, mtime=0)] * (size // (16 * MIB)))


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def link(path, target):
    path.unlink()
    path.symlink_to(target)


METRICS = b"experience,object,level,metric,value,seen\n"
SCORES = b"experience,object,image,label,score\n"


def with_file(name: str, content: bytes):
    return lambda path: (path / name).write_bytes(content)


def with_seed_of_5000_digits(path):
    text = (path / "run.json").read_text()
    (path / "run.json").write_text(text.replace('"seed": 0', '"seed": ' + "9" * 5000))


def folder_for_run_json(path):
    (path / "run.json").unlink()
    (path / "run.json").mkdir()


DAMAGE = {
    "nested brackets": (with_file("run.json", b"[" * 100_000), "nested too deeply"),
    "a number of 5,000 digits": (with_seed_of_5000_digits, "too many digits"),
    "3,000 experiences": (lambda p: edited(p, many_experiences), "the limits are"),
    "a type": (lambda p: edited(p, lambda i: i.update(costs=[1])), "costs: expected `object`"),
    "a huge cell": (with_file("metrics.csv", METRICS + b"0," + b"x" * 7 * MIB), "a row has more than"),
    "a huge quoted cell": (with_file("metrics.csv", METRICS + b'0,"' + b"\n" * 7 * MIB), "field limit"),
    "many quoted cells": (with_file("metrics.csv", METRICS + b'"\n",' * MIB), "a row has more than"),
    "an experience of 5,000 digits": (
        with_file("metrics.csv", METRICS + b"9" * 5000 + b",candle,image,auroc,0.5,1\n"),
        "not a whole number",
    ),
    "a large run.json": (with_file("run.json", b'{"a": "' + b"x" * 3 * MIB + b'"}'), "the limit is"),
    "a large metrics.csv": (with_file("metrics.csv", b"x" * 9 * MIB), "the limit is"),
    "a bomb": (lambda p: (p / "scores.csv.gz").write_bytes(bomb(4 * 2**30)), "a row has more than"),
    "a bomb of rows": (
        lambda p: (p / "scores.csv.gz").write_bytes(
            gzip.compress(SCORES) + gzip.compress(b"0,candle,a,0,1\n" * 100_000) * 16
        ),
        "more than 1,000,000 scores",
    ),
    "half a gzip file": (with_file("scores.csv.gz", gzip.compress(b"x" * 99)[:-9]), "scores.csv.gz"),
    "a pipe": (lambda p: fifo(p / "metrics.csv"), "not a regular file"),
    "a pipe for run.json": (lambda p: fifo(p / "run.json"), "not a regular file"),
    "a device": (lambda p: link(p / "run.json", "/dev/zero"), "it is a link"),
    "a link out of the folder": (lambda p: link(p / "metrics.csv", "/etc/passwd"), "it is a link"),
    "a folder for run.json": (folder_for_run_json, "Is a directory"),
    "an object nobody knows": (
        with_file("scores.csv.gz", gzip.compress(SCORES + b"0,nobody,a,0,1\n")),
        "is not in the protocol",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A results folder with one whole run."""
    results = tmp_path_factory.mktemp("good")
    make_run(results, "elpv_1_1", masks=False, scores=True)
    return results


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_skipped_with_its_reason_and_the_others_count(damage, good, tmp_path):
    shutil.copytree(good / "runs", tmp_path / "runs")
    path = make_run(tmp_path, "visa_8_1x4", scores=True)
    spoil, reason = DAMAGE[damage]
    spoil(path)
    clock = time.process_time()
    collection = collect(tmp_path)
    assert time.process_time() - clock < 4  # 2 s a directory, on a machine that may do other things
    assert [run.record.dataset.name for run in collection.runs] == ["elpv"]
    ((place, why),) = collection.damaged
    assert place == path and reason in why and len(why) < 600


def test_reading_a_bomb_takes_little_memory(good, tmp_path):
    """Peak memory of a process that reads an ordinary results folder, and then one with a bomb of rows."""
    path = make_run(tmp_path, "visa_8_1x4", scores=True)
    DAMAGE["a bomb of rows"][0](path)
    code = (
        "import resource, sys\n"
        "from iufbench.reporting.collect import collect\n"
        "from iufbench.support.errors import InputError\n"
        "for results in sys.argv[1:]:\n"
        "    try: collect(results)\n"
        "    except InputError: pass\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    command = [sys.executable, "-c", code, str(good), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 100


def test_every_command_that_reads_results_goes_past_damage(good, tmp_path):
    shutil.copytree(good / "runs", tmp_path / "runs")
    path = make_run(tmp_path, "visa_8_1x4")
    DAMAGE["a pipe"][0](path)
    for command in (["list", "runs"], ["tables"], ["report"], ["export"]):
        done = CliRunner().invoke(main, [*command, "--results", str(tmp_path)])
        assert done.exit_code == 0 and f"skipped {path}: " in done.stderr, (command, done.output)


def mutate(path, rng: random.Random) -> str:
    """Change one file of a run directory in one way; returns which."""
    file = path / rng.choice(NAMES)
    if file.is_dir():  # an earlier change made it a link to a folder
        file.unlink()
    content = bytearray(file.read_bytes() if file.is_file() else b"")
    packed = file.name.endswith(".gz") and rng.random() < 0.7
    if packed and content:
        content = bytearray(gzip.decompress(bytes(content)))
    kind = rng.choice(("bytes", "cut", "repeat", "swap", "json", "remove", "link", "text"))
    if kind == "bytes":
        for _ in range(rng.randint(1, 8)):
            if content:
                content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == "cut":
        del content[rng.randrange(len(content) + 1) :]
    elif kind == "repeat":
        at = rng.randrange(len(content) + 1)
        content[at:at] = content[at : at + 200] * rng.choice((1, 5, 1000))
    elif kind == "swap":
        lines = bytes(content).split(b"\n")
        rng.shuffle(lines)
        content = bytearray(b"\n".join(lines))
    elif kind == "text":
        at = rng.randrange(len(content) + 1)
        content[at : at + 3] = rng.choice(
            (b"1e999", b"nan", b"-1", b'"', b",", b"\0", b"\r\n", b"9" * 5000, b"\xff")
        )
    elif kind == "json" and file.name == "run.json":
        info = json.loads(bytes(content))
        place = info
        key = rng.choice(sorted(place))
        while isinstance(place[key], dict) and place[key] and rng.random() < 0.8:
            place = place[key]
            key = rng.choice(sorted(place))
        place[key] = rng.choice((None, -1, 2**70, 1.5, "x", "\x1b[31m", [], {}, [[]], True, "9" * 300))
        content = bytearray(json.dumps(info).encode())
    elif kind == "remove":
        file.unlink(missing_ok=True)
        return f"{kind} {file.name}"
    elif kind == "link":
        file.unlink(missing_ok=True)
        file.symlink_to(rng.choice(("/etc/passwd", "/dev/zero", "nowhere", "..")))
        return f"{kind} {file.name}"
    file.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return f"{kind} {file.name}"


def test_mutated_run_directories_are_read_or_skipped(good, tmp_path):
    """Bytes, types and sizes: never a traceback, never a hang, and a whole run beside them always counts."""
    seconds = float(os.environ.get("IUFBENCH_FUZZ_SECONDS", 0))
    rng, start, done = random.Random(0), time.monotonic(), 0
    source = make_run(tmp_path / "source", "visa_11_1", scores=True)
    while done < 60 or time.monotonic() - start < seconds:
        results = tmp_path / str(done)
        shutil.copytree(good / "runs", results / "runs")
        copied = results / "runs" / "mutated" / "seed0"
        shutil.copytree(source, copied)
        changes = [mutate(copied, rng) for _ in range(rng.randint(1, 3))]
        clock = time.process_time()
        collection = collect(results)
        for run in (*collection.runs, *collection.incomplete):
            run.summaries()
        assert time.process_time() - clock < 4, changes
        assert "elpv" in {run.record.dataset.name for run in collection.runs}, changes
        assert len(find_runs(results, include_incomplete=True)[0]) <= 2
        shutil.rmtree(results)
        done += 1
