"""The host's readings against what this process has really used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from jobs.io import cgroup
from jobs.telemetry.sampler import host
from jobs.telemetry.sampler.host import HostReader

if TYPE_CHECKING:
    from pathlib import Path


def _burn(seconds: float) -> None:
    end_s = time.process_time() + seconds
    while time.process_time() < end_s:
        pass


def test_host_reader_own_load_is_measured() -> None:
    reader = HostReader(os.getpid())
    begun_s, before = time.process_time(), reader.read()
    ballast = bytearray(os.urandom(1)) * 200_000_000
    _burn(0.3)
    used_s, after = time.process_time() - begun_s, reader.read()
    assert after["cpu_s"] - before["cpu_s"] == pytest.approx(used_s, abs=0.1)
    assert after["rss_bytes"] - before["rss_bytes"] > 150_000_000
    assert 0 < after["main_thread_s"] <= after["cpu_s"]
    assert len(ballast) == 200_000_000


def test_host_reader_running_child_is_included() -> None:
    program = "import sys; x = bytearray(b'1') * 100_000_000; print('up', flush=True); sys.stdin.read()"
    before = HostReader(os.getpid()).read()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        assert HostReader(os.getpid()).read()["rss_bytes"] - before["rss_bytes"] > 90_000_000
        assert child.stdin is not None
        child.stdin.close()


def test_host_reader_missing_process_raises() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        HostReader(2**22 + 1)


STAT = "usage_usec 9\nnr_throttled 3\nthrottled_usec {}\n"


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/kube/pod\n", {"kube/pod/cpu.stat": STAT.format(2_500_000)}),
        # The quota is that of a cgroup above, which alone counts its throttling.
        ("0::/kube/pod\n", {"kube/pod/cpu.stat": STAT.format(0), "kube/cpu.stat": STAT.format(2_500_000)}),
        ("0::/kube/pod\n", {"kube/pod/cpu.stat": STAT.format(500_000), "kube/cpu.stat": STAT.format(2_000_000)}),
        # The root has no quota.
        ("0::/kube/pod\n", {"kube/pod/cpu.stat": STAT.format(2_500_000), "cpu.stat": "usage_usec 9\n"}),
        # In a container with a cgroup namespace of its own.
        ("0::/../outside\n", {"cpu.stat": STAT.format(2_500_000)}),
        (
            "5:memory:/a\n4:cpu,cpuacct:/docker/b\n",
            {"cpu/docker/b/cpu.stat": "nr_throttled 3\nthrottled_time 2500000000\n"},
        ),
        ("4:cpu,cpuacct:/docker/b\n", {"cpu/cpu.stat": "nr_throttled 3\nthrottled_time 2500000000\n"}),
        # A name that is not UTF-8.
        ("0::/caf\udce9\n", {"caf\udce9/cpu.stat": "usage_usec 9\nthrottled_usec 2500000\n"}),
    ],
)
def test_host_reader_cgroup_v1_or_v2_gives_throttled_time(
    membership: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    for file, stat in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(stat)
    (proc / str(os.getpid())).mkdir(parents=True)
    (proc / str(os.getpid()) / "cgroup").write_bytes(os.fsencode(membership))
    monkeypatch.setattr(cgroup, "ROOT", root)
    monkeypatch.setattr(cgroup, "PROC", proc)
    assert HostReader(os.getpid()).read()["cgroup_throttled_s"] == 2.5


def test_host_reader_without_cgroup_omits_throttling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    monkeypatch.setattr(host, "PROC", tmp_path)
    assert set(HostReader(os.getpid()).read()) == {"cpu_s", "rss_bytes"}
