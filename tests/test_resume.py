"""Resuming interrupted runs: what is loaded, what is rejected, messages, and full disks."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import torch
from click.testing import CliRunner
from resuming import Killed, assert_same_run, interruption, reassembly
from tiny import assembled, tiny_plan, tiny_run, tiny_settings

from iufbench.cli.main import main
from iufbench.engine import checkpoint, runner
from iufbench.engine.stopping import terminated_as_interrupted
from iufbench.reporting.record import read_record
from iufbench.reporting.store import load_run
from iufbench.support.errors import InputError, RunError
from iufbench.support.progress import Progress

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def parts(data, tmp_path_factory):
    return assembled("finetune", data, tmp_path_factory.mktemp("parts"))[1]


@pytest.fixture(autouse=True)
def without_reading(parts, monkeypatch):
    monkeypatch.setattr(runner, "assemble", reassembly(parts))


@pytest.fixture(scope="module")
def whole(three_objects):
    """The uninterrupted run."""
    return three_objects("finetune")


@pytest.fixture
def stopped(data, tmp_path, monkeypatch):
    """The plan of a run that was killed inside the second experience, after its first epoch."""
    with interruption(monkeypatch, experience=1, epoch=2), pytest.raises(Killed):
        tiny_run("finetune", data, tmp_path, checkpoint_epochs=1)
    return tiny_plan("finetune", data, tmp_path)


def go_on(plan, capsys):
    """The messages, and the run."""
    run = load_run(runner.execute(plan, Progress()))
    return capsys.readouterr().err, run


def command(data, results, *more):
    settings = [part for s in tiny_settings("finetune") for part in ("--set", s)]
    return CliRunner().invoke(
        main,
        [
            "run", "--protocol", "visa_2_1", "--strategy", "finetune", "--data-root", str(data), "--results",
            str(results), "--device", "cpu", "--threads", "1", "-q", *settings, *map(str, more),
        ],
    )  # fmt: skip


# Where it goes on ------------------------------------------------------------------------------------


def test_it_says_where_it_resumes(stopped, whole, capsys):
    said, run = go_on(stopped, capsys)
    assert "resuming inside experience 2/2, after epoch 1 (--restart starts again)" in said
    assert_same_run(whole, run)


def test_a_quick_run_writes_nothing_inside_an_experience(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_within", lambda *arguments: pytest.fail("not within a minute"))
    assert tiny_run("finetune", data, tmp_path).complete


def test_by_default_time_decides_and_its_share_is_bounded(data, tmp_path, monkeypatch):
    clock, saved = [0.0], []

    def slow(run, experience, strategy, seconds):
        saved.append((experience, clock[0]))
        clock[0] += 10  # what the disk takes

    def tick(self, call=checkpoint.Saver.__call__):
        clock[0] += 20  # what an epoch takes
        call(self)

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint, "save_within", slow)
    monkeypatch.setattr(checkpoint.Saver, "__call__", tick)
    tiny_run("finetune", data, tmp_path, ("base.epochs=30", "increment.epochs=1"))
    # 30 epochs of 20 s: first after a minute, then no sooner than 50 times the ten seconds later.
    assert saved == [(0, 60.0), (0, 570.0)]


def test_a_kill_while_evaluating_costs_no_training(data, tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(runner, "evaluate_objects", raising(Killed()))
        tiny_run("finetune", data, tmp_path)
    trained = []
    train = runner._train
    monkeypatch.setattr(
        runner, "_train", lambda work, number, *a: (trained.append(number), train(work, number, *a))
    )
    assert_same_run(whole, tiny_run("finetune", data, tmp_path))
    assert trained == [1]


def raising(error):
    def function(*arguments, **options):
        raise error

    return function


# What is loaded --------------------------------------------------------------------------------------


def test_only_files_in_the_manifest_are_unpickled(stopped, monkeypatch):
    path = stopped.path / "checkpoints/experience0.pt"
    torch.save({"network": {}, "memory": {}, "clock": {}}, path)
    load, seen = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **o: (seen.append(o["weights_only"]), load(*a, **o))[1])
    with pytest.raises(RunError, match=r"experience0\.pt is corrupted \(its SHA-256 .* --restart"):
        runner.execute(stopped, Progress(-1))
    assert seen == [True]  # the file from inside experience 1, and no more
    manifest = stopped.path / "checkpoints/manifest.json"
    manifest.write_text("{}")
    with pytest.raises(RunError, match=r"manifest\.json is corrupted .*; --restart"):
        runner.execute(stopped, Progress(-1))
    assert load_run(runner.execute(stopped, Progress(-1), restart=True)).complete


def test_a_corrupted_file_from_inside_is_reported_and_ignored(stopped, whole, capsys):
    (path,) = (stopped.path / "checkpoints").glob("within*")
    path.write_bytes(path.read_bytes()[:-1])
    said, run = go_on(stopped, capsys)
    assert f"{path} is corrupted" in said and "resuming after experience 1/2" in said
    assert_same_run(whole, run)


def test_what_a_killed_process_left_is_cleaned(stopped, whole):
    for name in (".run.json.12.tmp", "checkpoints/.experience1.pt.12.tmp", "checkpoints/within1_2.pt"):
        (stopped.path / name).write_bytes(b"half")
    assert_same_run(whole, load_run(runner.execute(stopped, Progress(-1))))


def test_a_restart_discards_the_state_inside_an_experience(stopped, whole, capsys):
    run = load_run(runner.execute(stopped, Progress(), restart=True))
    assert "resuming" not in capsys.readouterr().err and "resumed" not in run.info
    assert_same_run(whole, run)


# What must not have changed --------------------------------------------------------------------------


def test_another_recipe_says_what_differs_from_the_unfinished_run(stopped, data, tmp_path, capsys):
    changed = tiny_plan("finetune", data, tmp_path, ("base.epochs=3", "increment.lr=0.5"))
    said, _ = go_on(changed, capsys)
    assert f"{stopped.path} is an unfinished run with a different recipe" in said
    assert "base.epochs: 2 before, 3 now" in said and "increment.lr" in said and "hidden" not in said
    assert "different recipe" not in go_on(stopped, capsys)[0]  # its own directory: it goes on
    again = tiny_plan("finetune", data, tmp_path, ("base.epochs=4",))
    assert "different recipe" not in go_on(again, capsys)[0]  # the others are finished


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("protocol", "experiences", [["candle"], ["capsules", "cashew"]], "experiences of the protocol"),
        ("backbone", "weights_sha256", "abc", "backbone weights, SHA-256: abc before"),
        ("request", "eval_unseen", True, "--eval-unseen: True before, False now"),
    ],
)
def test_what_the_name_of_the_directory_does_not_say_is_compared(stopped, part, key, value, words):
    path = stopped.path / "run.json"
    info = json.loads(path.read_text())
    info[part][key] = value
    path.write_text(json.dumps(info))
    with pytest.raises(InputError, match=f"unfinished run under other conditions .*{words}.*--restart"):
        runner.execute(stopped, Progress(-1))
    assert json.loads(path.read_text()) == info


def test_another_machine_is_noted(stopped, capsys):
    path = stopped.path / "run.json"
    info = json.loads(path.read_text())
    info["environment"]["threads"] = 7
    path.write_text(json.dumps(info))
    assert "threads: 7 before, 1 now; the last digits may differ" in go_on(stopped, capsys)[0]


# Signals ---------------------------------------------------------------------------------------------


def test_signals_interrupt_at_once_even_where_a_shell_ignores_them():
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with terminated_as_interrupted(), pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
                time.sleep(5)
            assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
            signal.signal(number, handler)


def test_what_is_interrupted_in_the_middle_of_a_write_is_resumed(data, tmp_path, whole, monkeypatch):
    """A signal between a checkpoint and its entry in the manifest."""
    replace, count = os.replace, []

    def interrupted(source, target):
        replace(source, target)
        if str(target).endswith("within0_1.pt"):
            count.append(target)
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        tiny_run("finetune", data, tmp_path, checkpoint_epochs=1)
    assert len(count) == 1 and os.path.exists(count[0])
    assert_same_run(whole, tiny_run("finetune", data, tmp_path))


# Full disks and odd clocks ---------------------------------------------------------------------------


@pytest.mark.parametrize("write", [3, 5, 8, 11, 14])
def test_a_full_disk_ends_a_run_cleanly_and_it_resumes(data, tmp_path, whole, monkeypatch, write):
    """From its ``write``-th file on, no file can be written."""
    replace, count = os.replace, []

    def full(source, target):
        count.append(target)
        if len(count) >= write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        done = command(data, tmp_path, "--checkpoint-epochs", 1)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("error: cannot write ") and done.stderr.count("\n") == 1
    assert str(count[write - 1]) in done.stderr and "No space left" in done.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    assert_same_run(whole, tiny_run("finetune", data, tmp_path))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 80 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(data, small_disk, whole, monkeypatch):
    ballast = small_disk / "ballast"

    def fill(self, call=checkpoint.Saver.__call__):
        if self._experience == 1 and not ballast.exists():
            with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(2**16))
        call(self)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Saver, "__call__", fill)
        done = command(data, small_disk / "results")
    assert done.exit_code == 1 and "No space left" in done.stderr and done.stderr.count("\n") == 1
    ballast.unlink()
    assert_same_run(whole, tiny_run("finetune", data, small_disk / "results"))


def test_clocks_that_go_backwards_break_nothing(data, tmp_path, whole, monkeypatch):
    times = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    monkeypatch.setattr(runner, "now", lambda: f"2026-01-01T00:00:{next(times) % 60:02d}+00:00")
    with interruption(monkeypatch, experience=1, epoch=2), pytest.raises(Killed):
        tiny_run("finetune", data, tmp_path, checkpoint_epochs=1)
    run = tiny_run("finetune", data, tmp_path)
    assert_same_run(whole, run)
    assert all(value >= 0 for value in run.info["seconds"].values())


# Results that have been changed -----------------------------------------------------------------------

NAMES = ("metrics.csv", "scores.csv.gz", "train_log.csv")


def rows(path):
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return text.decode().splitlines(keepends=True)


def write_rows(path, lines):
    text = "".join(lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def removed(path):
    path.unlink()


def halved(path):
    lines = rows(path)
    write_rows(path, lines[: (len(lines) + 1) // 2])


def edited(path):
    lines = rows(path)
    lines[1] = re.sub(r"\d(\r?\n)$", lambda found: str((int(found[0][0]) + 1) % 2) + found[1], lines[1])
    write_rows(path, lines)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [removed, halved, edited, cut])
def test_changed_results_of_an_unfinished_run_are_refused(stopped, data, tmp_path, name, change):
    path = stopped.path / name
    change(path)
    done = command(data, tmp_path, "--checkpoint-epochs", 1)
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.output
    assert str(path) in done.stderr and "--restart" in done.stderr
    with pytest.raises(RunError, match=r"--restart"):
        runner.execute(stopped, Progress(-1))
    assert not read_record(stopped.path).complete


def test_restarting_replaces_changed_results(stopped, whole):
    edited(stopped.path / "metrics.csv")
    assert_same_run(whole, load_run(runner.execute(stopped, Progress(-1), restart=True)))


def test_results_changed_while_a_run_is_at_work_do_not_end_as_complete(data, tmp_path, monkeypatch):
    train = runner._train

    def changed(work, number, *more):
        if number == 1:
            edited(work.plan.path / "scores.csv.gz")
        train(work, number, *more)

    monkeypatch.setattr(runner, "_train", changed)
    with pytest.raises(RunError, match=r"scores\.csv\.gz has been changed in the rows of experience 1"):
        tiny_run("finetune", data, tmp_path)
    assert read_record(tiny_plan("finetune", data, tmp_path).path).status == "failed"


@pytest.mark.parametrize("experience", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_between_results_and_the_manifest_is_resumed(
    data, tmp_path, whole, monkeypatch, name, experience
):
    replace, count = os.replace, []

    def killed(source, target):
        replace(source, target)
        if str(target).endswith(name):
            count.append(target)
            if len(count) == experience:
                raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", killed)
        tiny_run("finetune", data, tmp_path)
    assert_same_run(whole, tiny_run("finetune", data, tmp_path))


@pytest.mark.parametrize("name", NAMES[:2])
def test_changed_results_of_a_finished_run_are_no_finished_run(data, tmp_path, whole, name):
    shutil.copytree(whole.path.parents[5], tmp_path, dirs_exist_ok=True)
    assert command(data, tmp_path).exit_code == 0
    path = tiny_plan("finetune", data, tmp_path).path / name
    for change in (edited, removed):
        change(path)
        done = command(data, tmp_path)
        assert done.exit_code == 1 and done.stderr.count("\n") == 1, done.output
        assert str(path) in done.stderr and "--restart" in done.stderr


def test_an_unfinished_run_that_calls_itself_complete_is_not(stopped, data, tmp_path):
    path = stopped.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "complete"}))
    done = command(data, tmp_path)
    assert (
        done.exit_code == 1 and "no rows of experience 2 of 2" in done.stderr and "--restart" in done.stderr
    )
    with pytest.raises(RunError, match="no rows of experience 2 of 2"):
        load_run(stopped.path)


def test_a_changed_baseline_is_refused(data, tmp_path, monkeypatch):
    with interruption(monkeypatch, experience=1, epoch=1), pytest.raises(Killed):
        tiny_run("finetune", data, tmp_path, eval_unseen=True)
    plan = tiny_plan("finetune", data, tmp_path, eval_unseen=True)
    edited(plan.path / "baseline.csv")
    with pytest.raises(RunError, match=r"baseline\.csv has been changed .*--restart"):
        runner.execute(plan, Progress(-1))


# What belongs to another run ---------------------------------------------------------------------------


def test_checkpoints_of_another_run_are_refused(data, tmp_path, monkeypatch):
    """Neither run has recorded a result, so the checkpoints agree with all records of either."""
    for seed in (0, 1):
        with interruption(monkeypatch, experience=0, epoch=2), pytest.raises(Killed):
            tiny_run("finetune", data, tmp_path, checkpoint_epochs=1, seed=seed)
    mine, other = (tiny_plan("finetune", data, tmp_path, seed=seed) for seed in (0, 1))
    shutil.rmtree(mine.path / "checkpoints")
    shutil.copytree(other.path / "checkpoints", mine.path / "checkpoints")
    with pytest.raises(RunError, match=r"belongs to the run .*/seed1, not to .*/seed0: .*--restart"):
        runner.execute(mine, Progress(-1))


@pytest.mark.parametrize("finished", [True, False])
def test_a_directory_of_another_run_is_refused(data, tmp_path, whole, stopped, finished):
    other = tiny_plan("finetune", data, tmp_path, seed=1)
    shutil.copytree(whole.path if finished else stopped.path, other.path)
    done = command(data, tmp_path, "--seed", 1)
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and done.stdout == "", done.output
    assert "seed1 holds the run " in done.stderr and "/seed0: was it renamed" in done.stderr
    if not finished:
        with pytest.raises(InputError, match=r"run: .*/seed0 before, .*/seed1 now"):
            runner.execute(other, Progress(-1))
