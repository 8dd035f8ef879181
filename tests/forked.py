"""Runs in forked children of one warm process, so that killing fifty of them costs no fifty imports of torch.

Reads lines of JSON from stdin: ["kills", DATA, FOLDER], or signals, crowd, soak. Each is carried out in a
child; its result is printed as a line of JSON, its exit status as another. tests/test_kills.py judges them.
It is a process of its own because forking is safe only where no other thread has ever run.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from resuming import TABLES, assert_same_run, reassembly
from tiny import assembled, finished, tiny_plan, tiny_settings

from iufbench.cards.registry import card_paths
from iufbench.cli.main import main
from iufbench.engine import checkpoint, runner
from iufbench.evaluation.objects import ObjectEvaluation
from iufbench.reporting.record import INFO
from iufbench.reporting.store import find_runs, load_run
from iufbench.reporting.tables import build as _tables  # noqa: F401  imported once, not in each child
from iufbench.support import processes
from iufbench.support.progress import Progress, TrainingBar

PHASES = ("starting", "training", "evaluating", "writing a checkpoint")


class Shared:
    """Numbers that a child leaves behind however it dies: phase, experience, iteration, the first of both."""

    NAMES = ("phase", "experience", "done", "first_experience", "first", "disk", "objects", "per_epoch")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES))
        self.clear()

    def clear(self) -> None:
        for name in self.NAMES:
            self[name] = -1
        self["phase"] = self["disk"] = self["objects"] = 0

    def __getitem__(self, name: str) -> int:
        return struct.unpack_from("q", self._memory, 8 * self.NAMES.index(name))[0]

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * self.NAMES.index(name), value)


def fork(work, *arguments) -> int:
    """The process id of a child that does ``work`` and exits with what it returns, 99 for an exception."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os._exit(work(*arguments) or 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)


def ended(child: int) -> int:
    """The child's exit status, negative when a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watched(shared: Shared, fatal: tuple[str, int] | None) -> None:
    """Let this process say what it is at, and kill itself at a ``fatal`` moment.

    ("disk", 7): before its seventh step on the disk; ("objects", 2): while the second object is evaluated.
    """

    def in_phase(module, name, phase):
        function = getattr(module, name)

        def wrapped(*arguments):
            before, shared["phase"] = shared["phase"], PHASES.index(phase)
            result = function(*arguments)
            shared["phase"] = before
            return result

        setattr(module, name, wrapped)

    def counted(place, name, kind):
        function = getattr(place, name)

        def wrapped(*arguments):
            shared[kind] += 1
            if (kind, shared[kind]) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        setattr(place, name, wrapped)

    in_phase(runner, "_train", "training")
    in_phase(runner, "evaluate_objects", "evaluating")
    in_phase(checkpoint, "_write", "writing a checkpoint")
    for name in ("fsync", "replace", "unlink"):
        counted(os, name, "disk")
    counted(ObjectEvaluation, "judge", "objects")
    call = TrainingBar.after_training_iteration

    def iterated(self, strategy, **kwargs):
        experience, done = strategy.experience.current_experience, strategy.clock.train_exp_iterations + 1
        shared["per_epoch"] = len(strategy.dataloader)
        if shared["first"] < 0:
            shared["first_experience"], shared["first"] = experience, done
        shared["experience"], shared["done"] = experience, done
        call(self, strategy, **kwargs)

    TrainingBar.after_training_iteration = iterated


def one_run(plan, shared: Shared, fatal: tuple[str, int] | None = None) -> None:
    watched(shared, fatal)
    runner.execute(plan, Progress(-1), checkpoint_epochs=1)


def kills(data: Path, folder: Path, wholes: Path) -> dict:
    """Kill runs at random moments until each has died often; what was hit, lost and different.

    ``wholes``: a folder of runs that were never killed (tiny.finished).
    """
    chance, shared = random.Random(0), Shared()
    clock = time.monotonic()
    assert ended(fork(one_run, tiny_plan("finetune", data, folder / "first"), shared)) == 0
    # Every strategy takes at least half of these steps.
    seconds, steps = time.monotonic() - clock, {kind: shared[kind] for kind in ("disk", "objects")}
    whole = {strategy: finished(strategy, data, wholes, "visa_2_1") for strategy in card_paths("strategy")}
    hit, lost, completed = Counter(), [], 0
    for turn, strategy in enumerate(sorted(whole)):
        _, parts = assembled(strategy, data, folder)
        runner.assemble = reassembly(parts)
        plan = tiny_plan(strategy, data, folder / "killed")
        died, reached = 0, None
        while True:
            shared.clear()
            enough = died >= 1 + (turn % 3 == 0)
            kind = "" if enough else ("time", "disk", "objects")[(turn + died) % 3]
            fatal = (kind, chance.randint(1, steps[kind] // 2)) if kind in steps else None
            child = fork(one_run, plan, shared, fatal)
            if kind == "time":
                time.sleep(chance.uniform(0.05, 0.8) * seconds)
                os.kill(child, signal.SIGKILL)
            status = ended(child)
            if reached is not None and shared["first"] >= 0:
                lost.append(lost_iterations(reached, shared))
            if status == -signal.SIGKILL:
                died += 1
                hit[PHASES[shared["phase"]]] += 1
                if shared["done"] >= 0:
                    reached = (shared["experience"], shared["done"], shared["per_epoch"])
                continue
            assert status == 0, f"{strategy}: exit status {status}"
            assert_same_run(whole[strategy], load_run(plan.path))
            assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("within*"))
            completed, reached = completed + 1, None
            if enough:
                break
            shutil.rmtree(plan.path)
    return {"kills": sum(hit.values()), "hit": hit, "epochs_lost": max(lost), "completed": completed}


def lost_iterations(reached: tuple[int, int, int], shared: Shared) -> float:
    """Epochs trained again after a kill at ``reached`` (experience, iterations done, iterations an epoch)."""
    experience, done, per_epoch = reached
    if shared["first_experience"] > experience:
        return 0.0
    assert shared["first_experience"] == experience, "a whole experience was lost"
    return (done - (shared["first"] - 1)) / per_epoch


def command(data: Path, results: Path, *more: str, strategy: str = "finetune", seed: int = 0) -> list[str]:
    settings = [part for s in tiny_settings(strategy) for part in ("--set", s)]
    return [
        "run", "--protocol", "visa_2_1", "--strategy", strategy, "--seed", str(seed),
        "--data-root", str(data),
        "--results", str(results), "--device", "cpu", "--threads", "1", "-q", *settings, *more,
    ]  # fmt: skip


def invoke(arguments: list[str], errors: Path) -> int:
    """The command line in this process; its exit code. Its stderr goes to a file, its stdout nowhere."""
    with open(errors, "a") as file, open(os.devnull, "w") as nothing:
        os.dup2(file.fileno(), 2)
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(file):
            try:
                main(arguments, standalone_mode=True)
            except SystemExit as end:
                return int(end.code or 0)
    return 0


def signals(data: Path, folder: Path) -> dict:
    """SIGTERM and SIGINT to a run that would train for hours: how it ends, and where the next one resumes."""
    shared, found = Shared(), {}
    long = ["--set", "base.epochs=100000", "--checkpoint-epochs", "1"]
    for number in (signal.SIGTERM, signal.SIGINT):
        results, errors = folder / number.name, folder / f"{number.name}.txt"
        seconds, firsts, codes = [], [], []
        for _ in range(2):
            shared.clear()

            def work(results=results, errors=errors):
                watched(shared, None)
                return invoke(command(data, results, *long), errors)

            child = fork(work)
            while shared["done"] < shared["first"] + 20:
                time.sleep(0.01)
                assert not os.waitpid(child, os.WNOHANG)[0], errors.read_text()
            clock = time.monotonic()
            os.kill(child, number)
            codes.append(ended(child))
            seconds.append(time.monotonic() - clock)
            firsts.append((shared["first"], shared["done"]))
            per_epoch = shared["per_epoch"]
        (run,), _ = find_runs(results, include_incomplete=True)
        found[number.name] = {
            "codes": codes,
            "seconds": max(seconds),
            "epochs_repeated": (firsts[0][1] + 1 - firsts[1][0]) / per_epoch,
            "status": run.info["status"],
            "stderr": errors.read_text(),
        }
    return found


def crowd(data: Path, folder: Path) -> dict:
    """Eight processes in one results folder: three of them on one run, one making tables."""
    jobs = [
        ("finetune", 0),
        ("finetune", 0),
        ("finetune", 0),
        ("finetune", 1),
        ("si", 0),
        ("iuf", 0),
        ("ewc", 0),
    ]
    results = folder / "crowd"

    def tables():
        codes = Counter()
        while not (folder / "done").exists():
            codes[ended(fork(invoke, ["tables", "--results", str(results)], folder / "tables.txt"))] += 1
            time.sleep(2)
        (folder / "tables.json").write_text(json.dumps(codes))

    children = []
    for place, (strategy, seed) in enumerate(jobs):
        arguments = command(data, results, strategy=strategy, seed=seed)
        children.append(fork(invoke, arguments, folder / f"crowd{place}.txt"))
    reader = fork(tables)
    codes = [ended(child) for child in children]
    (folder / "done").touch()
    assert ended(reader) == 0
    runs, damaged = find_runs(results, include_incomplete=True)
    same = []
    for run in runs:
        strategy, seed = run.info["strategy"]["name"], run.info["seed"]
        arguments = command(data, folder / "alone", strategy=strategy, seed=seed)
        assert ended(fork(invoke, arguments, folder / "alone.txt")) == 0
        alone = folder / "alone" / run.path.relative_to(results)
        same.append(all((run.path / n).read_bytes() == (alone / n).read_bytes() for n in TABLES))
    return {
        "codes": codes,
        "stderr": [(folder / f"crowd{place}.txt").read_text() for place in range(len(jobs))],
        "tables": json.loads((folder / "tables.json").read_text()),
        "tables_stderr": (folder / "tables.txt").read_text(),
        "statuses": [run.info["status"] for run in runs],
        "corrupted": [str(problem) for problem in damaged],
        "same": same,
        "temporary": [str(p) for p in results.rglob("*.tmp")],
        "run_files": len(list(results.rglob(INFO))),
    }


def soak(data: Path, folder: Path) -> dict:
    """Forty experiences of one tiny object each: memory, open files, and what writing the tables takes."""
    root = folder / "many"
    for number in range(40):
        for place, count in (("train/good", 2), ("test/good", 1), ("test/scratch", 1)):
            images = root / f"part{number:02d}" / place
            images.mkdir(parents=True)
            for k in range(count):
                pixels = np.random.default_rng([number, len(place), k]).integers(
                    0, 256, (32, 32, 3), np.uint8
                )
                Image.fromarray(pixels).save(images / f"{k}.png")
    settings = ("image_size=32", "base.epochs=1", "increment.epochs=1", "network.neighbour_mask=null")
    plan = tiny_plan(
        "agem",
        root,
        folder / "soak",
        settings,
        protocol="many_1_1x39",
        backbone="test_resnet",
        weights="random",
    )
    processes.cores = lambda: (
        1
    )  # images are decoded in this process: workers that are still ending hold files open
    gc.collect()
    gc.freeze()  # what exists now does not have to be searched after every experience
    found: dict[str, list[float]] = {"resident": [], "open": [], "recording": []}
    record, spent = runner.record_experience, []

    def measured(*arguments):
        clock = time.process_time()
        record(*arguments)
        spent.append(time.process_time() - clock)

    def evaluated(run, experiences, original=runner.record_evaluated):
        original(run, experiences)
        gc.collect()
        # Without pages of files (torch's libraries), which the system takes back as it likes.
        _, pages, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
        found["resident"].append((pages - of_files) * os.sysconf("SC_PAGE_SIZE") / 2**20)
        found["open"].append(len(os.listdir("/proc/self/fd")))

    runner.record_experience, runner.record_evaluated = measured, evaluated
    clock = time.process_time()
    runner.execute(plan, Progress(-1))
    found["recording"] = [sum(spent), time.process_time() - clock]
    return {**found, "complete": load_run(plan.path).complete}


def answer(what: str, *folders: str) -> None:
    scenario = {"kills": kills, "signals": signals, "crowd": crowd, "soak": soak}[what]
    print(json.dumps(scenario(*map(Path, folders))), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(ended(fork(answer, *json.loads(line))), flush=True)
