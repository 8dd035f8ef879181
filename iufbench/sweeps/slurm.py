"""Writes a SLURM job array with one ``iufbench run`` per task, to be submitted by the user."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iufbench.cards.request import arguments
from iufbench.support.files import write_text
from iufbench.sweeps.estimate import Costs
from iufbench.sweeps.record import LOGS
from iufbench.sweeps.runs import PlannedRun

LARGEST_ARRAY = 1000  # SLURM's own default limit (MaxArraySize) is 1001

SCRIPT = """\
#!/bin/bash
# One task of the job array is one run: line SLURM_ARRAY_TASK_ID + $1 of commands.txt.
#SBATCH --job-name={name}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{gpus}#SBATCH --mem={memory}M
#SBATCH --output={logs}/slurm-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the time limit the run is interrupted; when requeued, it resumes from its checkpoint.
#SBATCH --signal=INT@120
set -u
export OMP_NUM_THREADS={cpus} MKL_NUM_THREADS={cpus}
line=$(( SLURM_ARRAY_TASK_ID + ${{1:-0}} ))
command=$(sed -n "${{line}}p" {commands})
if [ -z "$command" ]; then echo "commands.txt has no line $line" >&2; exit 2; fi
eval "exec $command"
"""


def write_array(folder: Path, name: str, runs: Sequence[PlannedRun], costs: Costs) -> tuple[Path, list[str]]:
    """Write ``commands.txt`` and ``array.sh``.

    All tasks of an array request the same resources: the largest numbers of CPUs and GPUs of any run, and
    1.5 times the largest expected memory. Paths are absolute: nodes must see the results folders and this
    Python interpreter under the same paths.

    Args:
        folder: The folder of the sweep.
        name: Its name.
        runs: The runs to be executed.
        costs: Costs of finished runs, for the memory.

    Returns:
        The script, and the commands that submit it.
    """
    folder = folder.absolute()
    lines = []
    for run in runs:
        request = replace(run.request, results=run.request.results.absolute())
        if request.data_root is not None:
            request = replace(request, data_root=request.data_root.absolute())
        lines.append(shlex.join([sys.executable, "-m", "iufbench", *arguments(request), "--quiet"]))
    commands = write_text(folder / "commands.txt", "\n".join(lines) + "\n")
    cpus = max(run.resources.cpus or 1 for run in runs)
    gpus = max(run.resources.gpus or 0 for run in runs)
    memory = max(costs.of(run).memory_mb for run in runs) * 1.5
    script = write_text(
        folder / "array.sh",
        SCRIPT.format(
            name=shlex.quote(f"iufbench-{name}"),
            cpus=max(1, math.ceil(cpus)),
            gpus=f"#SBATCH --gpus-per-task={math.ceil(gpus)}\n" if gpus else "",
            memory=math.ceil(memory),
            logs=folder / LOGS,
            commands=shlex.quote(str(commands)),
        ),
    )
    submit = []
    for start in range(0, len(runs), LARGEST_ARRAY):
        count = min(LARGEST_ARRAY, len(runs) - start)
        submit.append(f"sbatch --array=1-{count} {shlex.quote(str(script))} {start}")
    return script, submit
