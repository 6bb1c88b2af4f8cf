from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobs.io import cgroup
from jobs.io.cgroup import cpu_quota_cores, free_memory_bytes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``/proc`` in which this process has no cgroup yet."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    monkeypatch.setattr(cgroup, "PROC", folder)
    return folder


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "nonsense", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_cpu_quota_cores_of_either_version_is_read(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    write_files(tmp_path, files)
    assert cpu_quota_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"memory.max": "max\n", "memory.current": "100\n"}, None),
        ({"memory.max": "1000\n", "memory.current": "100\n"}, 900),
        ({"memory.max": "1000\n", "memory.current": "1100\n"}, 0),
        ({"memory/memory.limit_in_bytes": "1000\n", "memory/memory.usage_in_bytes": "400\n"}, 600),
    ],
)
def test_free_memory_bytes_is_read_from_either_version(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    write_files(tmp_path, files)
    assert free_memory_bytes(tmp_path) == left


V1 = "5:memory:/a/b\n4:cpu,cpuacct:/a/b\n"


@pytest.mark.parametrize(
    ("membership", "files", "cores", "left"),
    [
        # A systemd scope on the host, as of systemd-run -p CPUQuota=150%.
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n", "a/b/memory.max": "9\n", "a/b/memory.current": "2\n"}, 1.5, 7),
        # The limits are those of the folder above, or are smaller there.
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/memory.max": "9\n", "a/memory.current": "2\n"}, 1.5, 7),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1.5, None),
        ("0::/a/b\n", {"a/cpu.max": "max 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5, None),
        # In a container with a cgroup namespace of its own.
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5, None),
        ("0::/../outside\n", {"cpu.max": "50000 100000\n"}, 0.5, None),
        # Another cgroup's.
        ("0::/a/b\n", {"a/c/cpu.max": "50000 100000\n"}, None, None),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "50000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 0.5, None),
        (V1, {"memory/a/memory.limit_in_bytes": "9\n", "memory/a/memory.usage_in_bytes": "2\n"}, None, 7),
    ],
)
def test_limits_of_the_process_are_those_of_its_cgroup_and_above(
    membership: str, files: dict[str, str], cores: float | None, left: int | None, tmp_path: Path, proc: Path
) -> None:
    (proc / "self" / "cgroup").write_text(membership, encoding="utf-8")
    write_files(tmp_path, files)
    assert cpu_quota_cores(tmp_path) == cores
    assert free_memory_bytes(tmp_path) == left
