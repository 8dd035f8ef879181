"""Free memory is the minimum of the system's and the control group's."""

from __future__ import annotations

import os

import pytest

from iufbench.support.memory import free_memory, resident_memory


@pytest.mark.parametrize(
    "limit, usage",
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_free_memory_heeds_the_system_and_its_control_group(tmp_path, limit, usage):
    (tmp_path / "proc").mkdir()
    group = tmp_path / "sys/fs/cgroup"
    (group / limit).parent.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemFree: 100 kB\nMemAvailable:  500 kB\n")
    assert free_memory(tmp_path) == 500 * 1024
    (group / limit).write_text("max\n")
    (group / usage).write_text("300000\n")
    assert free_memory(tmp_path) == 500 * 1024
    (group / limit).write_text("400000\n")
    assert free_memory(tmp_path) == 100_000
    (group / limit).write_text("200000\n")
    assert free_memory(tmp_path) == 0
    assert free_memory(tmp_path / "elsewhere") == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_resident_memory_of_this_process_and_of_none():
    assert resident_memory(os.getpid()) > 2**20
    assert resident_memory(2**30) == 0
