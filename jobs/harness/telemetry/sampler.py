"""The sampler: a thread that reads the host and, once it is known, the job's GPU, at fixed times.

Every NVML call is made here and nowhere else, so that one that hangs holds up no one: whoever waits for the
thread waits for a bounded time. The thread is a daemon; a process of its own is a later step.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psutil

from jobs.harness.telemetry.facts import DeviceFacts, LiveReading
from jobs.harness.telemetry.host import HostReader
from jobs.harness.telemetry.nvml import METRICS, Nvml, NvmlUnavailable, read_metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.harness.device import FrameworkDevice
    from jobs.harness.telemetry.aggregate import Sample

HOST_INTERVAL_S: Final = 0.5


@dataclass(kw_only=True)
class Record:
    """What the sampler has gathered so far; written by its thread only."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """Last error of each metric."""
    unsupported: set[str] = field(default_factory=set)
    nvml_error: str | None = None
    gpu_error: str | None = None
    taken: int = 0
    missed: int = 0
    lateness_s: list[float] = field(default_factory=list)
    cpu_s: float | None = None


class Sampler:
    """Samples from :meth:`start` to :meth:`stop`."""

    def __init__(self, *, clock: Callable[[], float], interval_s: float) -> None:
        self._clock = clock
        self._interval_s = interval_s
        names = [*(metric.name for metric in METRICS), "cpu_percent", "rss_bytes"]
        self.record = Record(samples={name: [] for name in names})
        self.latest = LiveReading()
        self._stopping = threading.Event()
        self._device: FrameworkDevice | None = None
        self._facts: DeviceFacts | None = None
        self._facts_ready = threading.Event()
        self._handle: Any = None
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    @property
    def interval_s(self) -> float:
        return self._interval_s

    def start(self) -> None:
        self._thread.start()

    def attach(self, device: FrameworkDevice, *, timeout_s: float) -> DeviceFacts | None:
        """Ask the thread to find the device; ``None`` where it does not answer in time."""
        self._device = device
        return self._facts if self._facts_ready.wait(timeout_s) else None

    def stop(self, *, timeout_s: float) -> bool:
        """End the thread; ``False`` where a call of NVML's keeps it."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        nvml = None
        try:
            nvml = Nvml()
        except NvmlUnavailable as error:
            self.record.nvml_error = str(error)
        try:
            self._loop(nvml)
        except Exception as error:  # noqa: BLE001 - telemetry never stops a training run
            self.record.gpu_error = f"the sampler failed: {type(error).__name__}: {error}"
        finally:
            if not self._facts_ready.is_set():
                self._publish_facts(DeviceFacts(null_reasons=_all_unknown(self.record.gpu_error or "sampling ended")))
            if nvml is not None:
                nvml.close()
            self.record.cpu_s = time.thread_time()

    def _loop(self, nvml: Nvml | None) -> None:
        host = HostReader()
        host_due_s = deadline_s = self._clock()
        last_cpu: tuple[float, float] | None = None
        while not self._stopping.is_set():
            if self._device is not None and not self._facts_ready.is_set():
                self._find_device(nvml, self._device)
            now_s = self._clock()
            self.record.lateness_s.append(max(0.0, now_s - deadline_s))
            self.record.taken += 1
            if now_s >= host_due_s:
                host_due_s = now_s + HOST_INTERVAL_S
                last_cpu = self._sample_host(host, last_cpu)
            if self._handle is not None:
                self._sample_gpu()
            # Deadlines are absolute: a late sample does not push the later ones, those it ran over are missed.
            deadline_s += self._interval_s
            skipped = int(max(0.0, self._clock() - deadline_s) / self._interval_s)
            self.record.missed += skipped
            deadline_s += skipped * self._interval_s
            self._stopping.wait(max(0.0, deadline_s - self._clock()))

    def _sample_host(self, host: HostReader, last: tuple[float, float] | None) -> tuple[float, float] | None:
        try:
            cpu_s, rss_bytes = host.read()
        except (psutil.Error, OSError) as error:
            self.record.errors["cpu_percent"] = self.record.errors["rss_bytes"] = str(error)
            return last
        now_s = self._clock()
        self.record.samples["rss_bytes"].append((now_s, float(rss_bytes)))
        if last is not None and now_s > last[0]:
            percent = max(0.0, 100 * (cpu_s - last[1]) / (now_s - last[0]))
            self.record.samples["cpu_percent"].append((now_s, percent))
        return now_s, cpu_s

    def _sample_gpu(self) -> None:
        newest: dict[str, float] = {}
        # One time for the whole row: the readings of a row are microseconds apart.
        now_s = self._clock()
        for metric in METRICS:
            if metric.name in self.record.unsupported:
                continue
            try:
                newest[metric.name] = read_metric(metric, self._handle)
            except NvmlUnavailable as error:
                self.record.errors[metric.name] = str(error)
                if error.final:
                    self.record.unsupported.add(metric.name)
                continue
            self.record.samples[metric.name].append((now_s, newest[metric.name]))
        self.latest = LiveReading(
            gpu_util_percent=newest.get("util_percent"),
            power_w=newest.get("power_w"),
            memory_used_bytes=newest.get("memory_used_bytes"),
        )

    def _find_device(self, nvml: Nvml | None, device: FrameworkDevice) -> None:
        if nvml is None:
            self._publish_facts(DeviceFacts(null_reasons=_all_unknown(str(self.record.nvml_error))))
            return
        if device.kind == "cpu":
            self.record.gpu_error = "the job runs on the CPU"
            self._publish_facts(_system_facts(nvml))
            return
        try:
            handle, method = nvml.find(device)
            facts = nvml.facts(handle, method)
        except NvmlUnavailable as error:
            self.record.gpu_error = str(error)
            self._publish_facts(DeviceFacts(null_reasons=_all_unknown(str(error))))
            return
        self._handle = handle
        self._publish_facts(facts)

    def _publish_facts(self, facts: DeviceFacts) -> None:
        self._facts = facts
        self._facts_ready.set()


def _system_facts(nvml: Nvml) -> DeviceFacts:
    try:
        driver, cuda = nvml.driver_version(), nvml.cuda_driver_version()
    except NvmlUnavailable as error:
        return DeviceFacts(null_reasons=_all_unknown(str(error)))
    return DeviceFacts(driver_version=driver, cuda_driver_version=cuda)


def _all_unknown(reason: str) -> dict[str, str]:
    return {"environment.driver_version": reason, "environment.cuda_driver_version": reason, "devices[]": reason}
