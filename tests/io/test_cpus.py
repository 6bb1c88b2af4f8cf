from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.io import cpus as shared_cpu
from jobs.io.cpus import SHARED_CPUS, cpu_quota_cores, cpus_are_shared, cpus_used_by_others, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def busy_stranger() -> Iterator[int]:
    """A process that keeps a CPU busy and is no child of this one."""
    busy = f"{sys.executable} -c 'while True: pass' >/dev/null 2>&1 & echo $!"
    process = int(subprocess.run(["/bin/sh", "-c", busy], capture_output=True, text=True, check=True).stdout)
    yield process
    os.kill(process, signal.SIGKILL)


def write_quota(root: Path, content: str) -> None:
    (root / "cpu.max").write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5), ("200000 100000", 2.0)],
)
def test_cpu_quota_cores_of_version_2_is_read(content: str, expected: float | None, tmp_path: Path) -> None:
    write_quota(tmp_path, content)
    assert cpu_quota_cores(tmp_path) == expected


@given(affinity=st.integers(1, 256), quota=st.none() | st.floats(0.01, 512))
def test_usable_cpus_is_within_affinity_and_at_least_one(affinity: int, quota: float | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_cpu, "_affinity", lambda: list(range(affinity)))
        patch.setattr(shared_cpu, "cpu_quota_cores", lambda _: quota)
        threads = usable_cpus()
    assert 1 <= threads <= affinity
    if quota is not None and quota <= affinity:
        assert quota <= threads < quota + 1


def test_cpus_used_by_others_counts_a_stranger(busy_stranger: int) -> None:
    # On a CPU of its own it uses all of one; where more processes run than there are CPUs, others are counted too.
    assert busy_stranger > 0
    assert cpus_used_by_others(0.5) > SHARED_CPUS


def test_cpus_used_by_others_leaves_out_its_own_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            alone = shared_cpu._busy_s() - shared_cpu._cpu_s(shared_cpu._own_processes())
            assert child.pid in {process.pid for process in shared_cpu._own_processes()}
            assert alone > 0
        finally:
            child.kill()


def test_cpus_are_shared_where_the_quota_is_less_than_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_cpu, "cpus_used_by_others", lambda: 0.0)
    monkeypatch.setattr(shared_cpu, "_affinity", lambda: [0, 1, 2, 3])
    for content, shared in (("150000 100000", True), ("200000 100000", False), ("max 100000", False)):
        write_quota(tmp_path, content)
        assert cpus_are_shared(tmp_path) is shared
