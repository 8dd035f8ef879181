"""A sweep on a real Ray cluster of two nodes: killed workers and a killed node do not change results."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from victims import FOLDER

from iufbench.cards.strategies import Resources
from iufbench.reporting.figures.build import write_run_figures
from iufbench.reporting.store import find_runs
from iufbench.sweeps.drive import Sweep, carry_out
from iufbench.sweeps.grid import expand, read_grid
from iufbench.sweeps.record import Record, read_live
from iufbench.sweeps.runs import plan_runs
from iufbench.sweeps.screen import Screen

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_without_ray_the_message_says_what_to_install(monkeypatch, tmp_path):
    from iufbench.support.errors import InputError
    from iufbench.sweeps.ray_engine import connect

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'iufbench\[ray\]'"):
        connect("auto")


def test_an_address_without_an_answer():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'iufbench[ray]'")
    from cluster import free_port

    from iufbench.support.errors import InputError
    from iufbench.sweeps.ray_engine import connect

    with pytest.raises(InputError, match=r"no Ray head responds.*ray start --head"):
        connect(f"127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match="must be host:port or auto"):
        connect("somewhere")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'iufbench[ray]'")
    from cluster import Cluster

    held = tmp_path_factory.mktemp("held")
    made = Cluster(PYTHONPATH=str(HERE), **{FOLDER: str(held)})
    made.held = held
    try:
        made.add()
        yield made
    finally:
        import ray

        ray.shutdown()
        made.close()


@pytest.fixture
def engine(cluster):
    """An engine on a cluster of two nodes; the last test loses one."""
    import ray
    from cluster import wait_for_nodes

    from iufbench.sweeps.ray_engine import RayEngine

    if ray.is_initialized():
        ray.shutdown()

    def made(**options):
        connected = RayEngine(cluster.address, **options)
        wait_for_nodes(ray, 2)
        return connected

    yield made
    ray.shutdown()


def plan(file, results):
    grid = read_grid(file, {})
    return Sweep("tiny", grid.as_dict(), plan_runs(expand(grid, results), 1), results)


def when(condition, act):
    """Call ``act`` from a thread as soon as ``condition`` is true; returns the thread."""

    def watch():
        deadline = time.time() + 900
        while not condition() and time.time() < deadline:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_progress_and_failures_come_home_from_all_nodes(cluster, engine, tmp_path):
    from stubs import planned

    made = engine(function="stubs:act", shared=True)
    made.check = lambda runs: None  # stubs have no data
    runs = [planned(tmp_path, n, "wait=1.5", *(["fail=no disk"] if n == 2 else [])) for n in range(5)]
    sweep, out = Sweep("stub", {}, runs, tmp_path), io.StringIO()
    seen = set()
    live = sweep.folder / "live"

    def look():
        seen.update(json.loads(p.read_text())["node"] for p in live.glob("*.json") if p.stat().st_size)
        return len(seen) == 2

    watcher = when(look, lambda: None)
    failures = carry_out(sweep, made, "ray", Screen(1, out), share_base=False)
    watcher.join()
    assert list(failures) == [runs[2].id] and failures[runs[2].id] == "no disk"
    assert len(seen) == 2
    assert all((tmp_path / f"{n}.json").exists() == (n != 2) for n in range(5))
    assert "stub 3" in Record(sweep.folder).log(runs[3]).read_text()


@pytest.mark.slow
def test_a_run_that_fits_on_no_node_is_refused_before_anything_starts(cluster, engine, tmp_path):
    from stubs import planned

    from iufbench.support.errors import InputError

    large = replace(planned(tmp_path, 1), resources=Resources(cpus=2, gpus=0.5))
    with pytest.raises(InputError, match=r"no node has the 2 CPUs and 0\.5 GPUs that a run requests"):
        engine().check([planned(tmp_path, 0), large])


@pytest.mark.slow
def test_a_node_without_the_data_is_named_before_anything_starts(cluster, engine, data, tmp_path):
    """The data vanish after planning: every node then lacks them, like another machine."""
    import shutil

    from test_sweep import grid_file

    copy = shutil.copytree(data, tmp_path / "visa")
    sweep = plan(grid_file(copy, tmp_path), tmp_path / "r")
    shutil.rmtree(copy)
    from iufbench.support.errors import InputError

    with pytest.raises(InputError) as caught:
        carry_out(sweep, engine(), "ray", Screen(-1), share_base=False)
    assert str(caught.value).count("node ") == 2 and str(copy) in str(caught.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_lost_worker_and_a_lost_node_change_no_number(cluster, engine, data, tmp_path):
    from test_sweep import grid_file, one_by_one, same_numbers

    file = grid_file(data, tmp_path, protocols=["visa_1_1x2"], seeds="0-2")
    local = one_by_one(file, tmp_path / "local")

    made, out = engine(function="victims:held"), io.StringIO()
    sweep = plan(file, tmp_path / "ray")
    record = Record(sweep.folder)
    doomed = cluster.nodes[1]
    on_node = {member.pid for member in doomed.members()}

    def later(on_doomed):
        """The process of a run that has finished its base, on the node to be killed or on the other one."""
        for run in sweep.runs:
            live = read_live(record.live(run))
            on_node.update(member.pid for member in doomed.members())
            if live.get("experience", 0) >= 2 and (live["pid"] in on_node) == on_doomed:
                return live["pid"]
        return None

    killed = {}

    def kill_worker():
        killed["worker"] = later(on_doomed=False)
        os.kill(killed["worker"], signal.SIGKILL)

    def kill_node():
        killed["node"] = later(on_doomed=True)
        doomed.kill()

    threads = [
        when(lambda: later(False), kill_worker),
        when(lambda: later(True), kill_node),
        when(lambda: len(killed) == 2, (cluster.held / "release").touch),
    ]
    failures = carry_out(sweep, made, "ray", Screen(1, out), share_base=False)
    for thread in threads:
        thread.join()
    assert failures == {} and killed["worker"] and killed["node"], out.getvalue()
    swept = find_runs(tmp_path / "ray")[0]
    assert [run.id for run in swept] == list(local) and len(swept) == 3
    for one, other in zip(local.values(), swept):
        same_numbers(one.path, other.path)
        write_run_figures(one.path)
        assert other.info["request"]["results"] == str(tmp_path / "ray")
        assert {p.name for p in one.path.iterdir()} == {p.name for p in other.path.iterdir()}
    assert sum("resumed" in run.info for run in swept) == 2
    assert sum("attempt 2" in record.log(run).read_text() for run in sweep.runs) == 2
