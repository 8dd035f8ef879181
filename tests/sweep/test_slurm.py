"""The SLURM job array: its content, and its tasks executed by bash and by submitit."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from stubs import planned
from test_sweep import grid_file, invoke, same_numbers

from iufbench.cards.request import Request, arguments
from iufbench.cards.strategies import Resources
from iufbench.reporting.store import find_runs
from iufbench.sweeps.estimate import Costs
from iufbench.sweeps.slurm import write_array

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_the_script_asks_for_what_a_run_needs(tmp_path):
    runs = [planned(tmp_path, number) for number in range(2500)]
    runs[7] = replace(runs[7], resources=Resources(cpus=4, gpus=1))
    script, submit = write_array(tmp_path / "s", "study", runs, Costs())
    text = script.read_text()
    for line in ("--cpus-per-task=4", "--gpus-per-task=1", "--mem=3072M", "--signal=INT@120", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    assert len((tmp_path / "s" / "commands.txt").read_text().splitlines()) == 2500
    assert [line.split()[1:] for line in submit] == [
        ["--array=1-1000", str(script), "0"],
        ["--array=1-1000", str(script), "1000"],
        ["--array=1-500", str(script), "2000"],
    ]
    missing = subprocess.run(
        ["bash", str(script), "2500"], env={"SLURM_ARRAY_TASK_ID": "1", "PATH": "/usr/bin:/bin"}
    )
    assert missing.returncode == 2


@pytest.mark.slow
def test_a_task_of_the_array_is_a_run(data, tmp_path):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    file = grid_file(data, tmp_path, seeds="0-1")
    written = invoke("sweep", file, "--engine", "slurm", "--results", tmp_path / "r")
    assert written.exit_code == 0, written.output
    (line,) = written.stdout.splitlines()
    script = tmp_path / "r" / "sweeps" / "tiny" / "array.sh"
    assert line == f"sbatch --array=1-2 {script} 0"

    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=10)
    task = ["env", "SLURM_ARRAY_TASK_ID=2", "bash", str(script), "0"]
    executor.submit(submitit.helpers.CommandFunction(task, verbose=False)).result()
    assert "1 complete" in invoke("sweep", "status", tmp_path / "r" / "sweeps" / "tiny").stdout
    left = invoke("sweep", file, "--engine", "slurm", "--results", tmp_path / "r")
    assert left.stdout == f"sbatch --array=1-1 {script} 0\n"
    (run,) = find_runs(tmp_path / "r")[0]
    assert run.info["seed"] == 1
    request = {**run.info["request"], "results": str(tmp_path / "local")}
    local = invoke(*arguments(Request.from_dict(request)))
    assert local.exit_code == 0, local.output
    same_numbers(run.path, find_runs(tmp_path / "local")[0][0].path)
