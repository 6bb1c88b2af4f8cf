from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.errors import NotWritable
from jobs.exit_codes import ExitCode
from jobs.mnist_torch.cli import PROGRAM
from jobs.report.schema import Aggregate, GpuPhase, HostPhase, TrainingSummary, Validity
from jobs.training.prometheus import check_textfile_writable, to_prometheus, write_textfile
from tests.support.programs import ROOT, command_of
from tests.support.reports import make_report

if TYPE_CHECKING:
    from jobs.report import Report


def _with_gpu() -> Report:
    half = Aggregate(mean=50, p50=50, p95=50, max=50, n=30, coverage_ratio=1, quality="ok")
    gpu = GpuPhase.model_validate(
        dict.fromkeys(GpuPhase.model_fields)
        | {"util_percent": half, "power_w": half, "energy_j": 500.0, "throttle_s": {"thermal": 1.5, "power_cap": 0.0}}
    )
    host = HostPhase(cpu_percent=half, rss_peak_bytes=2**30)
    return make_report().model_copy(
        update={
            "training": TrainingSummary(duration_s=10, gpu=gpu, host=host),
            "validity": Validity(status="suspect", causes=["gpu_throttled"]),
        }
    )


def _read(report: Report) -> dict[str, list[tuple[dict[str, str], float]]]:
    families = text_string_to_metric_families(to_prometheus(report).decode())
    return {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}


def test_to_prometheus_of_a_report_is_read_by_the_parser() -> None:
    report = _with_gpu()
    found = _read(report)
    ((labels, accuracy),) = found["mnist_job_test_accuracy_ratio"]
    assert accuracy == report.results.test_accuracy_ratio
    assert labels["framework"] == report.config.framework
    assert labels["recipe"] == report.config.recipe
    assert found["mnist_job_gpu_utilization_ratio"][0][1] == 0.5
    assert found["mnist_job_gpu_power_watts"][0][1] == 50
    assert found["mnist_job_gpu_energy_joules"][0][1] == 500
    assert found["mnist_job_cpu_cores"][0][1] == 0.5
    assert found["mnist_job_valid"][0][1] == 0
    assert {labels["cause"]: value for labels, value in found["mnist_job_gpu_throttled_seconds"]} == {
        "thermal": 1.5,
        "power_cap": 0.0,
    }
    phases = {labels["phase"]: value for labels, value in found["mnist_job_phase_seconds"]}
    assert phases["train"] == pytest.approx(sum(p.end_s - p.start_s for p in report.phases if p.name == "train"))


def test_to_prometheus_of_a_null_has_no_sample() -> None:
    found = _read(make_report(gpu=False, changes={"validity": None}))
    assert not any("gpu" in name for name in found)
    assert "mnist_job_valid" not in found


def test_to_prometheus_of_a_number_beyond_float_has_no_sample() -> None:
    vast = {"results.framework_memory_peak_bytes": 10**400, "phases.2.start_s": -1.7e308, "phases.2.end_s": 1.7e308}
    report = make_report(changes=vast)
    host = HostPhase(cpu_percent=None, rss_peak_bytes=10**309)
    found = _read(report.model_copy(update={"training": TrainingSummary(duration_s=10, gpu=None, host=host)}))
    assert "mnist_job_framework_memory_peak_bytes" not in found
    assert "mnist_job_resident_memory_peak_bytes" not in found
    assert "train" not in {labels["phase"] for labels, _ in found["mnist_job_phase_seconds"]}
    assert found["mnist_job_train_seconds"][0][1] == report.results.train_wall_s


def test_to_prometheus_of_a_hostile_label_is_escaped() -> None:
    report = _with_gpu()
    hostile = report.config.model_copy(update={"recipe": 'le"net\\\n'})
    found = _read(report.model_copy(update={"config": hostile}))
    assert found["mnist_job_test_accuracy_ratio"][0][0]["recipe"] == 'le"net\\\n'


def test_write_textfile_replaces_the_file_before_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "mnist.prom"
    for _ in range(2):
        check_textfile_writable(path)
        write_textfile(_with_gpu(), path)
        assert path.read_bytes() == to_prometheus(_with_gpu())
        assert list(tmp_path.iterdir()) == [path]


def test_textfile_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for attempt in (check_textfile_writable, lambda path: write_textfile(_with_gpu(), path)):
        with pytest.raises(NotWritable, match="--metrics-textfile"):
            attempt(tmp_path / "nowhere" / "mnist.prom")


@pytest.mark.parametrize("what", ["fifo", "folder", "link to a file", "dangling link", "device", ".", ""])
def test_textfile_that_is_no_regular_file_is_refused_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("it" if " " in what or what in {"fifo", "folder", "device"} else what)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        # Not the machine's own null device, which code that fails this test would replace.
        _make_null_device(path)
    elif "link" in what:
        path.symlink_to("nowhere" if what == "dangling link" else __file__)
    before = path.lstat()
    for attempt in (check_textfile_writable, lambda path: write_textfile(_with_gpu(), path)):
        with pytest.raises(NotWritable, match="it is there and is no regular file"):
            attempt(path)
    assert path.lstat() == before
    assert [file.name for file in tmp_path.iterdir()] == ([path.name] if path.name else [])


def test_textfile_that_is_a_folder_is_refused_before_the_framework_is_loaded(tmp_path: Path) -> None:
    command = command_of(PROGRAM, "train", "--metrics-textfile", ".", "--report-dir", str(tmp_path / "reports"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.REPORT_NOT_WRITABLE
    assert done.stderr == (
        "error: --metrics-textfile '.' cannot be written (it is there and is no regular file); "
        "choose a file in a folder that exists and can be written to\n"
    )


def _make_null_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device")
