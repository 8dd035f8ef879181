"""Worker processes do not outlive the process that started them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

IN_PROCESSES = """
import time
from iufbench.support.processes import in_processes
list(in_processes(time.sleep, [60] * 2, 2))
"""
GENERATING = """
import time
from pathlib import Path
from iufbench.data.synthetic import writer
writer._write = lambda folder, job: time.sleep(60)
writer._write_images(Path(), [None] * 100, 2, False)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="counts threads in /proc")
@pytest.mark.parametrize("script", [IN_PROCESSES, GENERATING])
def test_workers_end_when_their_process_is_killed(script):
    process = subprocess.Popen([sys.executable, "-c", script])
    own, deadline = psutil.Process(process.pid), time.monotonic() + 60

    def workers():
        return [child for child in own.children() if child.num_threads() > 1]

    while len(found := workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(found, timeout=30)
    assert len(found) == 2 and not alive
