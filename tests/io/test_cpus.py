from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.io import cpus
from jobs.io.cpus import SHARED_CPUS, cpus_are_shared, cpus_used_by_others, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def unrelated_busy_process() -> Iterator[None]:
    """A process that keeps a CPU busy and is no child of this one."""
    busy = f"{sys.executable} -c 'while True: pass' >/dev/null 2>&1 & echo $!"
    process = int(subprocess.run(["/bin/sh", "-c", busy], capture_output=True, text=True, check=True).stdout)
    yield
    os.kill(process, signal.SIGKILL)


def write_quota(root: Path, content: str) -> None:
    (root / "cpu.max").write_text(content, encoding="utf-8")


@given(affinity=st.integers(1, 256), quota=st.none() | st.floats(0.01, 512))
def test_usable_cpus_is_within_affinity_and_at_least_one(affinity: int, quota: float | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpus, "_affinity", lambda: list(range(affinity)))
        patch.setattr(cpus, "cpu_quota_cores", lambda _: quota)
        threads = usable_cpus()
    assert 1 <= threads <= affinity
    if quota is not None and quota <= affinity:
        assert quota <= threads < quota + 1


@pytest.mark.usefixtures("unrelated_busy_process")
def test_cpus_used_by_others_counts_an_unrelated_process() -> None:
    # On a CPU of its own it uses all of one; where more processes run than there are CPUs, others are counted too.
    assert cpus_used_by_others(0.5) > SHARED_CPUS


def test_cpus_used_by_others_leaves_out_its_own_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            alone_s = cpus._busy_s() - cpus._cpu_s(cpus._own_processes())
            assert child.pid in {process.pid for process in cpus._own_processes()}
            assert alone_s > 0
        finally:
            child.kill()


def test_cpus_are_shared_where_the_quota_is_less_than_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "cpus_used_by_others", lambda: 0.0)
    monkeypatch.setattr(cpus, "_affinity", lambda: [0, 1, 2, 3])
    for content, shared in (("150000 100000", True), ("200000 100000", False), ("max 100000", False)):
        write_quota(tmp_path, content)
        assert cpus_are_shared(tmp_path) is shared
