"""What a machine has, within the limits of control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from atoll.plan.machine import disk_of, look, peak_rss, rss

GIB = 2**30


def _written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_the_machine_itself_is_the_limit(tmp_path: Path) -> None:
    found = look(tmp_path, tmp_path / "none")
    assert found.limit is None
    assert found.quota is None
    assert 0 < found.free <= found.memory
    assert found.memory == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.cores == len(os.sched_getaffinity(0))


def test_version_two_the_tightest_of_all_groups_around_counts(tmp_path: Path) -> None:
    root = _written(
        tmp_path / "cgroup",
        {
            "memory.max": "max\n",
            "cpu.max": "max 100000\n",
            "pod/memory.max": f"{2 * GIB}\n",
            "pod/memory.current": f"{GIB}\n",
            "pod/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
            "pod/cpu.max": "150000 100000\n",
            "pod/box/memory.max": f"{4 * GIB}\n",
            "pod/box/memory.current": "0\n",
            "pod/box/cpu.max": "max 100000\n",
        },
    )
    own = _written(tmp_path, {"own": "0::/pod/box\n"}) / "own"
    found = look(root, own)
    assert found.limit == 2 * GIB
    assert found.free == GIB + GIB // 4
    assert found.quota == 1.5


def test_version_one_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    root = _written(
        tmp_path / "cgroup",
        {
            "memory/box/memory.limit_in_bytes": f"{GIB}\n",
            "memory/box/memory.usage_in_bytes": f"{GIB // 2}\n",
            "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
            "cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
            "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    own = _written(tmp_path, {"own": "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n"}) / "own"
    found = look(root, own)
    assert (found.limit, found.free, found.quota) == (GIB, GIB // 2, 0.5)


def test_inside_a_container_the_path_may_be_that_outside(tmp_path: Path) -> None:
    root = _written(tmp_path / "cgroup", {"memory.max": f"{GIB}\n", "memory.current": "0\n"})
    own = _written(tmp_path, {"own": "0::/docker/0123\n"}) / "own"
    assert look(root, own).limit == GIB


def test_memory_of_this_process_is_what_the_system_says() -> None:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    assert rss() == pytest.approx(int(line.split()[1]) * 1024, rel=0.1)
    assert peak_rss() >= 0.9 * rss()


def test_the_disk_of_a_path_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    found = disk_of(tmp_path / "runs" / "deep" / "run")
    assert found.folder == tmp_path
    assert found.writable
    stats = os.statvfs(tmp_path)
    assert found.free == pytest.approx(stats.f_bavail * stats.f_frsize, rel=0.05)
    (tmp_path / "file").write_text("")
    assert disk_of(tmp_path / "file" / "run").folder == tmp_path
