"""The door: start watching, say which device, stop and get what was observed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.harness.telemetry.aggregate import aggregate, counted
from jobs.harness.telemetry.facts import DeviceFacts, LiveReading, NvmlStatus, Observation
from jobs.harness.telemetry.nvml import METRICS, Nvml, NvmlUnavailable
from jobs.harness.telemetry.sampler import HOST_INTERVAL_S, Sampler
from jobs.report import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.harness.device import FrameworkDevice
    from jobs.harness.phases import Span

ATTACH_TIMEOUT_S: Final = 5.0
STOP_TIMEOUT_S: Final = 2.0
NOT_IN_THIS_RELEASE: Final = "this release does not measure it"
TOO_SHORT: Final = "no sample fell into a phase this short"
UNITS: Final = {metric.name: metric.unit for metric in METRICS} | {"cpu_percent": "%", "rss_bytes": "B"}


def watch(*, clock: Callable[[], float], interval_s: float = 0.1) -> Watch:
    """Start watching; ``clock`` is the phases' clock, ``interval_s`` the time between two samples."""
    return Watch(Sampler(clock=clock, interval_s=interval_s))


def probe() -> NvmlStatus:
    """What NVML says here, for ``doctor``."""
    try:
        nvml = Nvml()
    except NvmlUnavailable as error:
        return NvmlStatus(available=False, driver_version=None, devices=(), error=str(error))
    try:
        return NvmlStatus(available=True, driver_version=nvml.driver_version(), devices=nvml.devices(), error=None)
    except NvmlUnavailable as error:
        return NvmlStatus(available=False, driver_version=None, devices=(), error=str(error))
    finally:
        nvml.close()


class Watch:
    """One run's telemetry. Nothing here raises because of NVML, and nothing waits for it for long."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._observation: Observation | None = None
        self._device_kind = "cpu"
        sampler.start()

    def attach(self, device: FrameworkDevice) -> DeviceFacts:
        """Tell which device the job uses; what NVML knows of it comes back, found by UUID or PCI bus id."""
        self._device_kind = device.kind
        facts = self._sampler.attach(device, timeout_s=ATTACH_TIMEOUT_S)
        if facts is not None:
            return facts
        reason = f"NVML did not answer within {ATTACH_TIMEOUT_S:.0f} s"
        paths = ("environment.driver_version", "environment.cuda_driver_version", "devices[]")
        return DeviceFacts(null_reasons=dict.fromkeys(paths, reason))

    def latest(self) -> LiveReading:
        return self._sampler.latest

    def stop(self, spans: Sequence[Span]) -> Observation:
        """Stop sampling and aggregate by phase. Takes at most 2 s; a second call answers the same."""
        if self._observation is None:
            stopped = self._sampler.stop(timeout_s=STOP_TIMEOUT_S)
            self._observation = self._observe(spans, stopped=stopped)
        return self._observation

    def _observe(self, spans: Sequence[Span], *, stopped: bool) -> Observation:
        record = self._sampler.record
        reasons: dict[str, str] = {}
        no_gpu = self._no_gpu_reason(stopped=stopped)
        if no_gpu is not None:
            reasons["phases[].gpu"] = no_gpu
        gpu = tuple(None if no_gpu is not None else self._gpu_phase(span, reasons) for span in spans)
        host = tuple(self._host_phase(span) for span in spans)
        reasons["phases[].host.cpu_percent"] = record.errors.get("cpu_percent", TOO_SHORT)
        reasons["phases[].host.rss_peak_bytes"] = record.errors.get("rss_bytes", TOO_SHORT)
        lateness = record.lateness_s
        sampler = schema.Sampler(
            mode="thread",
            interval_s=self._sampler.interval_s,
            taken=record.taken,
            missed=record.missed,
            lateness_p95_ms=float(np.percentile(lateness, 95)) * 1000 if lateness else None,
            cpu_s=record.cpu_s,
        )
        reasons["telemetry.sampler.lateness_p95_ms"] = "no sample was taken"
        reasons["telemetry.sampler.cpu_s"] = "the sampler did not end in time"
        timeseries = self._timeseries()
        if timeseries is None:
            reasons["timeseries"] = "no sample was taken"
        warnings = []
        if not stopped:
            message = f"the sampler did not stop within {STOP_TIMEOUT_S:.0f} s: an NVML call hangs"
            warnings.append(schema.RunWarning(code="telemetry_hangs", message=message))
        return Observation(
            telemetry=schema.Telemetry(
                available=no_gpu is None, capabilities=self._capabilities(no_gpu, reasons), sampler=sampler
            ),
            gpu=gpu,
            host=host,
            timeseries=timeseries,
            null_reasons=reasons,
            warnings=tuple(warnings),
        )

    def _no_gpu_reason(self, *, stopped: bool) -> str | None:
        record = self._sampler.record
        if self._device_kind == "cpu":
            return "the job ran on the CPU"
        if not stopped and not any(record.samples[metric.name] for metric in METRICS):
            return "NVML did not answer"
        return record.nvml_error or record.gpu_error

    def _gpu_phase(self, span: Span, reasons: dict[str, str]) -> schema.GpuPhase:
        record = self._sampler.record

        def figures(name: str, window_s: float) -> schema.Aggregate | None:
            found = aggregate(record.samples[name], span.start_s, span.end_s, hold_s=window_s)
            if found is None:
                reasons[f"phases[].gpu.{name}"] = record.errors.get(name, TOO_SHORT)
            return found

        energy_j = counted(record.samples["energy_j"], span.start_s, span.end_s, hold_s=2 * self._sampler.interval_s)
        if energy_j is None:
            why = record.errors.get("energy_j", "not sampled at both ends of the phase, or the counter was reset")
            reasons["phases[].gpu.energy_j"] = reasons["phases[].gpu.energy_source"] = why
        used = [value for at_s, value in record.samples["memory_used_bytes"] if span.start_s <= at_s <= span.end_s]
        if not used:
            reasons["phases[].gpu.memory_used_peak_bytes"] = record.errors.get("memory_used_bytes", TOO_SHORT)
        reasons["phases[].gpu.sm_util_percent"] = reasons["phases[].gpu.throttle_s"] = NOT_IN_THIS_RELEASE
        return schema.GpuPhase(
            util_percent=figures("util_percent", 1.0),
            sm_util_percent=None,
            memory_util_percent=figures("memory_util_percent", 1.0),
            power_w=figures("power_w", 5 * self._sampler.interval_s),
            energy_j=energy_j,
            energy_source=None if energy_j is None else "nvmlDeviceGetTotalEnergyConsumption",
            memory_used_peak_bytes=int(max(used)) if used else None,
            throttle_s=None,
        )

    def _host_phase(self, span: Span) -> schema.HostPhase:
        samples = self._sampler.record.samples
        memory = [value for at_s, value in samples["rss_bytes"] if span.start_s <= at_s <= span.end_s]
        return schema.HostPhase(
            cpu_percent=aggregate(samples["cpu_percent"], span.start_s, span.end_s, hold_s=3 * HOST_INTERVAL_S),
            rss_peak_bytes=int(max(memory)) if memory else None,
        )

    def _capabilities(self, no_gpu: str | None, reasons: dict[str, str]) -> dict[str, schema.Capability]:
        record = self._sampler.record
        capabilities = {
            metric.name: schema.Capability(
                supported=bool(record.samples[metric.name]),
                source=metric.source,
                error=record.errors.get(metric.name)
                or (None if record.samples[metric.name] else record.nvml_error or no_gpu or "no sample was taken"),
                window_s=metric.window_s,
            )
            for metric in METRICS
        }
        for name in ("sm_util_percent", "throttle_s"):
            capabilities[name] = schema.Capability(
                supported=False, source=None, error=NOT_IN_THIS_RELEASE, window_s=None
            )
        for name in capabilities:
            reasons[f"telemetry.capabilities.{name}.source"] = NOT_IN_THIS_RELEASE
            reasons[f"telemetry.capabilities.{name}.error"] = "no error"
            reasons[f"telemetry.capabilities.{name}.window_s"] = "instantaneous, a counter, or not measured"
        return capabilities

    def _timeseries(self) -> schema.TimeSeries | None:
        columns = {name: dict(samples) for name, samples in self._sampler.record.samples.items() if samples}
        times = sorted({at_s for samples in columns.values() for at_s in samples})
        if not times:
            return None
        return schema.TimeSeries(
            columns=list(columns),
            units=[UNITS[name] for name in columns],
            t_s=[round(at_s, 4) for at_s in times],
            values=[[samples.get(at_s) for at_s in times] for samples in columns.values()],
        )
