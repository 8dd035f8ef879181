"""Real SIGKILLs, real signals, a crowd of processes and a long run, in forked children (forked.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iufbench.cards.registry import card_paths

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """Carries out a scenario of forked.py, whose imports are made once for all of them."""
    errors = tmp_path_factory.mktemp("forked") / "stderr"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    program = [sys.executable, "-W", "ignore", str(HERE / "forked.py")]
    with (
        open(errors, "w") as stderr,
        subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        ) as process,
    ):

        def carry_out(what, *folders):
            process.stdin.write(json.dumps([what, *map(str, folders)]) + "\n")
            process.stdin.flush()
            found = None
            while not (line := process.stdout.readline()).strip().lstrip("-").isdigit():
                assert line, errors.read_text()
                found = json.loads(line)
            assert int(line) == 0, errors.read_text()
            return found

        yield carry_out
        process.stdin.close()


def test_kills_of_every_strategy_lose_no_more_than_one_epoch(forked, data, session_folder, tmp_path):
    found = forked("kills", data, tmp_path, session_folder / "three_objects")
    assert found["kills"] >= 50
    for phase in ("training", "evaluating", "writing a checkpoint"):
        assert found["hit"][phase] >= 3, found
    assert found["epochs_lost"] <= 1, found  # --checkpoint-epochs 1
    # Of every strategy; each ended with the bytes of the run that was never killed, and no file more.
    assert found["completed"] >= len(card_paths("strategy"))


def test_a_signal_ends_a_run_at_once_and_costs_at_most_an_epoch(forked, data, tmp_path):
    for name, found in forked("signals", data, tmp_path).items():
        assert found["codes"] == [130, 130], (name, found)
        assert found["seconds"] < 10
        assert 0 <= found["epochs_repeated"] <= 1
        assert found["status"] == "interrupted"
        lines = [line for line in found["stderr"].splitlines() if line]
        assert lines == ["interrupted: the same command resumes from the last checkpoint"] * 2


def test_eight_processes_in_one_results_folder(forked, data, tmp_path):
    found = forked("crowd", data, tmp_path)
    for code, text in zip(found["codes"], found["stderr"]):
        # On one and the same run there is one who does it; the others say so, or come after it and find it.
        assert (code == 0 and text == "") or (code == 1 and "another process is executing this run" in text)
    assert found["codes"][3:] == [0] * 4 and 0 in found["codes"][:3]
    assert found["statuses"] == ["complete"] * 5 and found["run_files"] == 5
    assert found["same"] == [True] * 5  # as each run gives when it is alone
    assert not found["corrupted"] and not found["temporary"]
    assert set(found["tables"]) <= {"0", "2"} and found["tables"].get("0", 0) > 0, found["tables_stderr"]
    assert "Traceback" not in found["tables_stderr"] and "skipped" not in found["tables_stderr"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_forty_experiences_leave_memory_and_open_files_flat(forked, data, tmp_path):
    found = forked("soak", data, tmp_path)
    assert found["complete"] and len(found["resident"]) == 40
    resident = np.array(found["resident"][15:])
    slope, level = np.polyfit(np.arange(25), resident, 1)
    noise = np.std(resident - (slope * np.arange(25) + level))
    # MiB per experience. What lives on beside the network is the memory of A-GEM: 2 images of 32x32 each.
    assert abs(slope) * 25 < max(4 * noise, 8), (slope, noise, found["resident"])
    assert len(set(found["open"][15:])) == 1, found["open"]
    recording, all_of_it = found["recording"]
    assert recording < 0.1 * all_of_it, found["recording"]
