from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobs.io.cgroup import cpu_quota_cores, free_memory_bytes

if TYPE_CHECKING:
    from pathlib import Path


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
