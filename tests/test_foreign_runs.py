"""Untrusted run directories are data: whatever they contain, other runs are read, in bounded time.

``IUFBENCH_FUZZ_SECONDS`` is the duration of the fuzz test in seconds (CI: 60).
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
import zlib
from contextlib import suppress

import numpy as np
import pytest
from click.testing import CliRunner
from fake_runs import make_run

from iufbench.cards.request import Request
from iufbench.cli.main import main
from iufbench.engine import describe
from iufbench.engine.checkpoint import check_records
from iufbench.engine.selection import COLUMNS, optimism
from iufbench.evaluation.rows import MetricRow
from iufbench.reporting.collect import collect
from iufbench.reporting.export import pyclad, tidy_rows
from iufbench.reporting.groups import group_runs
from iufbench.reporting.literature import published
from iufbench.reporting.maps import read_maps, usual_value, write_maps
from iufbench.reporting.report.parts import overview, provenance
from iufbench.reporting.report.ranking import rankings
from iufbench.reporting.rundir import record_hashes
from iufbench.reporting.store import find_runs, record_baseline
from iufbench.reporting.tables.build import build_tables, render
from iufbench.reporting.undefined import remarks
from iufbench.support.errors import InputError, RunError
from iufbench.support.files import json_text, write_csv, write_json
from iufbench.support.progress import Progress
from iufbench.trust.verify import verify_run

NAMES = ("run.json", "metrics.csv", "scores.csv.gz", "baseline.csv", "train_log.csv", "selection.csv")
NAMES += ("run.json", "maps/experience0/candle.npz", "checkpoints/manifest.json")
PUBLISHED = published()
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


def replaced(path, old: str, new: str) -> None:
    text = (path / "run.json").read_text()
    assert old in text
    (path / "run.json").write_text(text.replace(old, new))


def with_seed_of_5000_digits(path):
    replaced(path, '"seed": 0', '"seed": ' + "9" * 5000)


def nested(levels: int) -> dict:
    return {"a": nested(levels - 1)} if levels else {}


def folder_for_run_json(path):
    (path / "run.json").unlink()
    (path / "run.json").mkdir()


DAMAGE = {
    "nested brackets": (with_file("run.json", b"[" * 100_000), "nested too deeply"),
    "a number of 5,000 digits": (with_seed_of_5000_digits, "too many digits"),
    "3,000 experiences": (lambda p: edited(p, many_experiences), "the limits are"),
    "half a character": (with_file("run.json", b'{"format": 1, "\xb7": 1}'), "a key is not UTF-8 text"),
    "bytes for the name of a metric": (
        with_file("metrics.csv", METRICS + b"0,candle,image,\xff,0.5,1\n"),
        "is not a valid name",
    ),
    "half a character for a number": (
        lambda p: edited(p, lambda i: i.update(seed="\ud800")),
        "surrogates not allowed",
    ),
    "a type": (lambda p: edited(p, lambda i: i.update(costs=[1])), "costs: expected `object`"),
    "a huge cell": (with_file("metrics.csv", METRICS + b"0," + b"x" * 7 * MIB), "a row has more than"),
    "a huge quoted cell": (with_file("metrics.csv", METRICS + b'0,"' + b"\n" * 7 * MIB), "field limit"),
    "many quoted cells": (with_file("metrics.csv", METRICS + b'"\n",' * MIB), "a row has more than"),
    "an experience with a leading zero": (
        with_file("scores.csv.gz", gzip.compress(SCORES + b"0,candle,a,0,1\n00,candle,b,1,0\n")),
        "experience is '00', not a whole number",
    ),
    "an experience of 5,000 digits": (
        with_file("metrics.csv", METRICS + b"9" * 5000 + b",candle,image,auroc,0.5,1\n"),
        "not a whole number",
    ),
    "a duplicate key": (lambda p: replaced(p, '"seed": 0', '"seed": 7, "seed": 0'), "duplicate key 'seed'"),
    "NaN": (lambda p: replaced(p, '"total": 380.0', '"total": NaN'), "NaN is not a number in JSON"),
    "a number beyond float64": (
        lambda p: replaced(p, '"total": 380.0', '"total": 1e999'),
        "the number 1e999 is too large",
    ),
    "negative costs": (
        lambda p: edited(p, lambda i: i["costs"].update(bytes_kept=[-1] * 5)),
        "costs.bytes_kept[0]: expected `int` >= 0",
    ),
    "no pixels": (lambda p: edited(p, lambda i: i.update(image_size=0)), "image_size: expected `int` >= 1"),
    "a nested recipe": (lambda p: edited(p, lambda i: i.update(recipe=nested(100))), "nested too deeply"),
    "an object that is a path": (
        lambda p: edited(p, lambda i: i["protocol"]["experiences"][0].__setitem__(0, "../../candle")),
        "cannot name an object",
    ),
    "no rule of a threshold": (
        lambda p: edited(p, lambda i: i.update(request={"threshold": "often"})),
        "request.threshold: threshold 'often' is not a rule",
    ),
    "many metrics": (
        lambda p: (p / "metrics.csv").write_bytes(
            METRICS + b"".join(b"0,candle,image,m%d,0.5,1\n" % k for k in range(501))
        ),
        "more than 500 metrics",
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
    """A results folder with one valid run."""
    results = tmp_path_factory.mktemp("good")
    make_run(results, "elpv_1_1", masks=False, scores=True)
    return results


@pytest.mark.parametrize("damage", DAMAGE)
def test_corruption_is_skipped_with_its_reason_and_the_others_count(damage, good, tmp_path):
    shutil.copytree(good / "runs", tmp_path / "runs")
    path = make_run(tmp_path, "visa_8_1x4", scores=True)
    spoil, reason = DAMAGE[damage]
    spoil(path)
    clock = time.process_time()
    collection = collect(tmp_path)
    assert time.process_time() - clock < 6  # 2 s a directory, on a machine that does other things
    assert [run.record.dataset.name for run in collection.runs] == ["elpv"]
    ((place, why),) = collection.damaged
    assert place == path and reason in why and len(why) < 600


LONG = {
    "train_log.csv": b"experience,loss\n" + b"0,0.5\n" * (2**23 // 6 - 10),
    "baseline.csv": b"experience,object,level,metric,value\n"
    + b"".join(b"0,candle,image,%d,0\n" % k for k in range(40_000)),
}


def test_reading_what_is_within_the_limits_takes_little_memory(good, tmp_path):
    """Peak memory of a process that reads an ordinary results folder, then one with long files and bombs."""
    path = make_run(tmp_path, "visa_8_1x4", scores=True)
    for name, content in LONG.items():
        (path / name).write_bytes(content)
    DAMAGE["a bomb of rows"][0](path)
    (path / "maps/experience0").mkdir(parents=True)
    np.savez_compressed(
        path / "maps/experience0/candle.npz", maps=np.zeros((1500, 224, 224), "f2"), images=["a"] * 1500
    )
    code = (
        "import resource, sys\n"
        "from iufbench.reporting.collect import collect\n"
        "from iufbench.reporting.maps import read_maps, usual_value\n"
        "from iufbench.reporting.store import find_runs\n"
        "from iufbench.support.errors import InputError\n"
        "for results in sys.argv[1:]:\n"
        "    try: collect(results)\n"
        "    except InputError: pass\n"
        "    for run in find_runs(results)[0]:\n"
        "        run.train_log(), run.baseline('image')\n"
        "        if (run.path / 'maps').is_dir():\n"
        "            usual_value(one for _, one in read_maps(run, 0, 'candle'))\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    command = [sys.executable, "-c", code, str(good), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 100


def test_every_command_that_reads_results_goes_past_corruption(good, tmp_path):
    shutil.copytree(good / "runs", tmp_path / "runs")
    path = make_run(tmp_path, "visa_8_1x4")
    DAMAGE["a pipe"][0](path)
    for command in (["list", "runs"], ["tables"], ["report"], ["export"]):
        done = CliRunner().invoke(main, [*command, "--results", str(tmp_path)])
        assert done.exit_code == 0 and f"skipped {path}: " in done.stderr, (command, done.output)


def test_texts_of_any_kind_are_shown_shortened_and_escaped(tmp_path):
    """A valid run whose texts no page, figure or terminal could show as they are."""
    path = make_run(tmp_path, "elpv_1_1", masks=False, scores=True)
    odd = "\ud800 \x1b[31m \u202e $\\frac{ " + "x" * (MIB // 2)

    def change(info):
        info["strategy"]["title"] = info["licence"] = odd
        info["preset"] = info["backbone"]["name"] = odd[:200]
        info["recipe"] = {"block": {"smoothing": "abc"}}

    edited(path, change)
    clock = time.process_time()
    for command in (["tables", "--results"], ["export", "--results"], ["report", "--results"]):
        done = CliRunner().invoke(main, [*command, str(tmp_path)])
        assert done.exit_code == 0 and "\x1b" not in done.output, (command, done.output[:1000])
    assert time.process_time() - clock < 20


def test_scores_that_were_taken_out_are_missed(tmp_path):
    """Values of metrics.csv without scores are not recomputed: all who read them say so."""
    path = make_run(tmp_path, "visa_8_1x4", scores=True)
    lines = gzip.decompress((path / "scores.csv.gz").read_bytes()).splitlines(keepends=True)
    hashes = record_hashes(path)
    edited(path, lambda info: info.update(records_sha256=hashes))
    (path / "scores.csv.gz").write_bytes(gzip.compress(b"".join(x for x in lines if b",cashew," not in x)))
    warnings = " ".join(collect(tmp_path).warnings())
    assert "no scores behind 5 values of metrics.csv (auroc of cashew after experience 0, ...)" in warnings
    changed = "scores.csv.gz was changed after the run ended"
    assert changed in warnings and changed in describe.run_rows(tmp_path)[0]["note"]
    (path / "scores.csv.gz").unlink()
    (path / "scores.csv.gz").mkdir()
    assert "Is a directory" in describe.run_rows(tmp_path)[0]["note"]


def mutate(path, rng: random.Random) -> str:
    """Change one file of a run directory randomly; returns the file."""
    file = path / rng.choice(NAMES)
    if file.is_dir():  # an earlier change made it a link to a folder
        file.unlink()
    content = bytearray(file.read_bytes() if file.is_file() and file.stat().st_size < MIB else b"")
    packed = file.name.endswith(".gz") and rng.random() < 0.7
    if packed and content:
        with suppress(OSError, EOFError, zlib.error):
            content = bytearray(gzip.decompress(bytes(content)))
    kind = rng.choice(("bytes", "cut", "repeat", "swap", "json", "json", "remove", "link", "text", "size"))
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
            (b"1e999", b"nan", b"-1", b'"', b",", b"\0", b"\r\n", b"9" * 5000, b"\xff", b"\x1b[2J", b"=1+1")
        )
    elif kind == "json" and file.suffix == ".json":
        with suppress(ValueError, RecursionError):  # of an earlier change
            content = bytearray(json.dumps(retyped(json.loads(bytes(content)), rng)).encode())
    elif kind == "remove":
        file.unlink(missing_ok=True)
        return f"{kind} {file.name}"
    elif kind == "link":
        file.unlink(missing_ok=True)
        file.symlink_to(rng.choice(("/etc/passwd", "/dev/zero", "nowhere", "..", file.name)))
        return f"{kind} {file.name}"
    elif kind == "size" and not file.is_symlink():
        with file.open("ab") as end:
            end.truncate(rng.choice((0, 2**20 + 1, 2**24 + 1, 2**33)))  # of holes: nothing is written
        return f"{kind} {file.name}"
    if file.is_symlink():
        file.unlink()
    file.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return f"{kind} {file.name}"


OTHERS = (
    None,
    -1,
    0,
    2**40,
    2**70,
    1.5,
    1e308,
    "x",
    "",
    "\x1b[31m",
    "\ud800",
    "a\0b",
    [],
    {},
    [[]],
    {"a": {}},
    True,
)


def retyped(value, rng: random.Random):
    """The same JSON with one value, anywhere in it, replaced by another type or size."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: retyped(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        k = rng.randrange(len(value))
        return [*value[:k], retyped(value[k], rng), *value[k + 1 :]]
    return rng.choice((*OTHERS, "9" * 300))


def read_in_every_way(results, whole: bool) -> None:
    """Everything that reads run directories; a single run may raise InputError and RunError only."""
    collection = collect(results)
    assert "elpv" in {run.record.dataset.name for run in collection.runs}
    assert len(find_runs(results, include_incomplete=True)[0]) <= 2
    describe.columns(describe.run_rows(results, warn=lambda text: None))
    for run in (*collection.runs, *collection.incomplete):
        if run.record.dataset.name == "elpv":
            continue
        for read in (
            run.summaries,
            run.train_log,
            lambda run=run: describe.describe_results(run),
            lambda run=run: optimism(run.path),
            lambda run=run: check_records(run.path),
            lambda run=run: Request.from_dict(run.record.request, run.path),
            lambda run=run: usual_value(one for _, one in read_maps(run, 0, "candle")),
            lambda run=run: verify_run(run.path, Progress(-1), scores_only=True),
        ):
            with suppress(InputError, RunError):
                read()
    for run in collection.runs:  # whole by now: nothing may be wrong with it
        json.dumps([tidy_rows(run), provenance(run, remarks(run)).facts], default=str)
        json_text(pyclad(run))
    if whole:
        tables = build_tables(collection.runs, PUBLISHED, collection.footnotes)
        groups = group_runs(collection.runs)
        assert tables and all(render(table, fmt) for table in tables for fmt in ("md", "html", "csv"))
        assert rankings(groups, PUBLISHED) and overview(groups, PUBLISHED)


def test_mutated_run_directories_are_read_or_skipped(good, tmp_path):
    """Bytes, types and sizes: never a traceback, never a hang, and a valid run beside them is always read.

    A failure prints the seed of its changes; ``IUFBENCH_FUZZ_SEED`` starts there.
    """
    seconds = float(os.environ.get("IUFBENCH_FUZZ_SECONDS", 0))
    seed, start, done = int(os.environ.get("IUFBENCH_FUZZ_SEED", 0)), time.monotonic(), 0
    source = make_run(tmp_path / "source", "visa_11_1", scores=True)
    record_baseline(source, [MetricRow("candle", "image", "auroc", 0.5, False)])
    write_csv(source / "selection.csv", COLUMNS, [(0, "", 1, "candle", "image", 0.5)])
    write_maps(source / "maps/experience0/candle.npz", np.ones((2, 4, 4)), ["a", "b"])
    request = Request("visa_11_1", "iuf", data_root=tmp_path, settings=("base.epochs=2",)).as_dict()
    edited(source, lambda info: info.update(request=request, warnings=["a warning"]))
    write_json(
        source / "checkpoints/manifest.json",
        {"files": {"experience0.pt": "0" * 64}, "evaluated": 1, "records": {"metrics.csv": ["0" * 64]}},
    )
    while done < 60 or time.monotonic() - start < seconds:
        rng, results = random.Random(seed + done), tmp_path / str(done)
        shutil.copytree(good / "runs", results / "runs")
        copied = results / "runs" / "mutated" / "seed0"
        shutil.copytree(source, copied)
        changes = [mutate(copied, rng) for _ in range(rng.randint(1, 3))]
        clock = time.process_time()  # for about seven readings of the directory, each within 2 s
        try:
            read_in_every_way(results, whole=done % 10 == 0 or seconds > 0)
        except Exception as error:
            raise AssertionError(f"seed {seed + done}: {changes}") from error
        assert time.process_time() - clock < 12, f"seed {seed + done}: {changes}"
        shutil.rmtree(results)
        done += 1
