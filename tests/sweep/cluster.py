"""A real Ray cluster of several nodes on this machine, over the loopback interface, with failures."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_raylet_start_wait_time_s": "900",  # on a machine that is busy with other tests
    # A lost node is noticed in seconds, not in the half minute that suits a network.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """One ``ray start --block`` and all processes that it started."""

    def __init__(self, *options, environment, log):
        self._log = open(log, "wb")  # noqa: SIM115 (closed in kill)
        self.process = subprocess.Popen(
            [*RAY, "start", "--block", "--disable-usage-stats", *options],
            env=environment, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def members(self):
        """The node's processes: raylet, agents, workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def kill(self):
        """Simulate a power failure."""
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        self._log.close()


class Cluster:
    """A head and nodes with ``cpus`` CPUs each. ``add`` joins another node by the head's address."""

    def __init__(self, cpus=1, **environment):
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
        self._environment = {**os.environ, **ENVIRONMENT, **environment}
        self.port, self._cpus = free_port(), cpus
        self.address = f"127.0.0.1:{self.port}"
        self.nodes = []
        self._start(
            "--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}",
        )  # fmt: skip

    def add(self):
        return self._start(f"--address={self.address}")

    def _start(self, *options):
        shared = [
            "--node-ip-address=127.0.0.1",
            f"--num-cpus={self._cpus}",
            "--object-store-memory=100000000",
            "--memory=8000000000",
        ]
        # Ports given in advance: Ray waits only 15 seconds for agents that choose their own.
        agents = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        shared += [f"--{name}-port={free_port()}" for name in agents]
        log = self.folder / f"node{len(self.nodes)}.log"
        self.nodes.append(Node(*options, *shared, environment=self._environment, log=log))
        deadline = time.time() + 900
        while "Ray runtime started" not in self.log(-1):
            if time.time() > deadline or self.nodes[-1].process.poll() is not None:
                reason = self.log(-1)
                self.close()
                raise RuntimeError(f"a node of the test cluster did not start: {reason}")
            time.sleep(0.2)
        return self.nodes[-1]

    def log(self, number):
        number %= len(self.nodes)
        return (self.folder / f"node{number}.log").read_text(errors="replace")

    def close(self):
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for_nodes(ray, count):
    """Wait until so many nodes are alive."""
    deadline = time.time() + 600
    while sum(node["Alive"] for node in ray.nodes()) != count:
        assert time.time() < deadline
        time.sleep(0.2)
