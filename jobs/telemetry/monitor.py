"""Telemetry's interface: start, attach the device, mark phase boundaries, stop and get the observation."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from jobs.report import schema
from jobs.telemetry import conditions
from jobs.telemetry.phase_metrics import PhaseMetrics
from jobs.telemetry.sampler_process import ProcessSampler, Sampler, SampleStore, ThreadSampler
from jobs.telemetry.types import DeviceFacts, DeviceQuery, LiveReading, NvmlStatus, Observation, Options
from jobs.telemetry.validity import assess_validity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.adapter import FrameworkDevice
    from jobs.phases import Span

START_TIMEOUT_S: Final = 5.0
STOP_TIMEOUT_S: Final = 1.5
WATCH_GPU_VARIABLE: Final = "MNIST_JOBS_WATCH_GPU"
"""UUID of a GPU to sample during a CPU job, which does not use it: to test the telemetry."""


def watch(*, clock: Callable[[], float], options: Options | None = None, gpu_untouched: bool = True) -> RunMonitor:
    """Start watching.

    ``clock`` is the phases' clock, which must run as the monotonic clock does. ``gpu_untouched``: this process has
    not used a GPU yet, so that all use of it before :meth:`RunMonitor.attach` is another process's.
    """
    return RunMonitor(clock, options or Options(), gpu_untouched=gpu_untouched)


class RunMonitor:
    """One run's telemetry. No method raises because of NVML or waits for it for more than a few seconds."""

    def __init__(self, clock: Callable[[], float], options: Options, *, gpu_untouched: bool) -> None:
        self._options = options
        self._offset_s = clock() - time.monotonic()
        self._store = SampleStore()
        self._warnings: list[schema.RunWarning] = []
        self._query: DeviceQuery | None = None
        self._on_gpu = False
        self._untouched_until_s = 0.0
        self._gpu_untouched = gpu_untouched
        self._off_reason = "telemetry is off (--telemetry off)"
        self._no_device_reason = "the run ended before a device was chosen"
        self._facts = DeviceFacts()
        self._observation: Observation | None = None
        self._sampler = self._start()

    def _start(self) -> Sampler:
        if self._options.mode == "process":
            try:
                return ProcessSampler(self._options, self._store)
            except OSError as error:
                self.warn("telemetry_in_thread", f"no process for the sampler could be started ({error})")
        return self._without_sampler() if self._options.mode == "off" else self._start_threads()

    def _start_threads(self) -> Sampler:
        try:
            return ThreadSampler(self._options, self._store)
        except RuntimeError as error:
            # A limit on processes also counts threads.
            self._off_reason = f"no sampler could be started ({error})"
            self.warn("telemetry_failed", self._off_reason)
            return self._without_sampler()

    def _without_sampler(self) -> Sampler:
        # No message will come, so nothing must wait for one.
        self._store.close()
        return Sampler()

    def warn(self, code: str, message: str) -> None:
        """Add a warning to the report; those in ``validity.SUSPECT_CODES`` make the run suspect."""
        self._warnings.append(schema.RunWarning(code=code, message=message))

    def attach(self, device: FrameworkDevice, *, untouched_until_s: float | None = None) -> DeviceFacts:
        """Start sampling the job's device and return what NVML knows of it.

        The job has not used it before ``untouched_until_s`` on the monotonic clock (default: now).
        """
        self._untouched_until_s = time.monotonic() if untouched_until_s is None else untouched_until_s
        self._on_gpu = device.kind == "gpu"
        self._query = query_of(device)
        self._request_device()
        ended_at_once = self._store.ended.is_set() and self._store.device is None
        if self._sampler.mode == "process" and ended_at_once and not self._sampler.has_crashed():
            self.warn("telemetry_in_thread", f"the sampler's process ended at once ({self._failure()})")
            self._sampler.stop(0.0)
            self._store = SampleStore()
            self._sampler = self._start_threads()
            self._request_device()
        self._facts = self._read_facts()
        return self._facts

    @property
    def watch_error(self) -> str | None:
        """Why the GPU that the user named is not watched; ``None`` also while NVML may still answer."""
        may_answer = self._store.device is None and not self._store.ended.is_set()
        return None if may_answer else self._watch_error()

    def _watch_error(self) -> str | None:
        query, error = self._query, self.device_facts().null_reasons.get("devices[]")
        if query is None or not query.is_named_by_user or error is None:
            return None
        return f"{WATCH_GPU_VARIABLE} names {query.uuid!r}, which cannot be watched: {error}"

    def _warn_about_watched_gpu(self) -> None:
        if self._query is None or not self._query.is_named_by_user:
            return
        if (error := self._watch_error()) is not None:
            self.warn("watched_gpu_not_found", error)
        else:
            text = f"the job ran on the CPU; {self._query.uuid} was watched, not used"
            self.warn("watched_gpu_not_used", text)

    def _request_device(self) -> None:
        if self._sampler.mode != "off":
            self._sampler.send({"kind": "attach", "query": self._query and asdict(self._query)})
            self._store.has_device.wait(START_TIMEOUT_S)

    def device_facts(self) -> DeviceFacts:
        """What NVML knows of the device by now; it may have answered after :meth:`attach` stopped waiting."""
        return self._facts if self._store.device is None else self._read_facts()

    def _read_facts(self) -> DeviceFacts:
        answer = self._store.device
        if answer is None:
            if self._sampler.mode == "off":
                self._no_device_reason = self._off_reason
            elif self._store.ended.is_set():
                self._no_device_reason = f"the sampler failed: {self._failure()}"
            else:
                self._no_device_reason = f"NVML did not answer within {START_TIMEOUT_S:.0f} s"
        if answer is None:
            answer = {"facts": {}, "errors": {}, "error": self._no_device_reason}
        facts, errors, error = answer["facts"], answer["errors"], answer["error"]
        if error is not None:
            unread = {"driver_version", "cuda_driver_version"} - facts.keys() - errors.keys()
            errors = errors | dict.fromkeys(unread, error)
        reasons = {
            f"{'environment' if name.endswith('driver_version') else 'devices[]'}.{name}": text
            for name, text in errors.items()
        }
        return DeviceFacts(**facts, null_reasons=reasons if error is None else reasons | {"devices[]": error})

    def _failure(self) -> str:
        return next(iter(self._store.failures), "it gave no reason")

    def mark(self) -> None:
        """Read the counters now, at the boundary of two phases."""
        self._sampler.send({"kind": "mark"})

    def latest(self) -> LiveReading:
        return self._store.latest()

    def stop(self, spans: Sequence[Span]) -> Observation:
        """Stop sampling, which takes at most 2 s, and aggregate by phase; a second call returns the same result."""
        if self._observation is None:
            self._sampler.stop(STOP_TIMEOUT_S)
            self._warn_about_sampler()
            self._warn_about_watched_gpu()
            try:
                self._observation = self._observe(
                    spans, self._no_gpu_reason(), self._off_reason if self._sampler.mode == "off" else None
                )
            except Exception as error:  # noqa: BLE001 - a trained run is reported even if its telemetry fails
                reason = f"the readings could not be aggregated: {error!r}"
                self.warn("telemetry_failed", reason)
                self._store = SampleStore()
                self._observation = self._observe(spans, reason, reason)
        return self._observation

    def _no_gpu_reason(self) -> str | None:
        store = self._store
        if self._sampler.mode == "off":
            return self._off_reason
        if self._query is None:
            return "the job ran on the CPU"
        error: str | None = (
            store.inventory["error"] or self._no_device_reason if store.device is None else store.device["error"]
        )
        return error

    def _warn_about_sampler(self) -> None:
        store = self._store
        if self._sampler.mode == "off":
            return
        if store.failures:
            self.warn("telemetry_failed", f"the sampler failed: {self._failure()}")
        elif store.ended.is_set() and store.end["cpu_s"] is None and self._sampler.mode == "process":
            self.warn("telemetry_died", "the sampler's process ended before the run did; later figures are missing")
        elif store.gpu_end is None:
            self.warn("telemetry_hangs", "an NVML call hangs; figures after it are missing")

    def _observe(self, spans: Sequence[Span], no_gpu: str | None, no_host: str | None) -> Observation:
        reasons = {"training": "the run did not get as far as steady training"}
        warnings = list(self._warnings)
        metrics = PhaseMetrics(self._store, self._options, self._offset_s, no_gpu, no_host)
        intervals = [(span.start_s, span.end_s) for span in spans]
        train = [(span.start_s, span.end_s) for span in spans if span.name == "train"]
        training, found = None, []
        if train:
            training = schema.TrainingSummary(
                duration_s=sum(end_s - start_s for start_s, end_s in train),
                gpu=metrics.gpu(train, "training.gpu", reasons),
                host=metrics.host(train, "training.host", reasons),
            )
            has_lost_readings = metrics.has_lost_readings()
            found.append(conditions.of_training(training, self._store, has_lost_readings=has_lost_readings))
        if self._on_gpu:
            until_s = self._untouched_until_s if self._gpu_untouched else None
            found.append(conditions.of_other_work(self._store, until_s))
        warnings += [warning for one in found for warning in one.warnings]
        unknown = [name for one in found for name in one.unknown]
        reasons["timeseries"] = no_host or "no reading was taken"
        return Observation(
            telemetry=schema.Telemetry(
                available=no_gpu is None,
                capabilities=metrics.capabilities(reasons),
                sampler=self._sampler_summary(no_gpu, reasons),
            ),
            gpu=tuple(metrics.gpu([interval], "phases[].gpu", reasons) for interval in intervals),
            host=tuple(metrics.host([interval], "phases[].host", reasons) for interval in intervals),
            training=training,
            validity=assess_validity(on_gpu=self._on_gpu, training=training, warnings=warnings, unknown=unknown),
            timeseries=metrics.time_series(),
            null_reasons=reasons,
            warnings=tuple(warnings),
        )

    def _sampler_summary(self, no_gpu: str | None, reasons: dict[str, str]) -> schema.Sampler:
        not_ended = "the sampler did not end in time"
        is_off = self._sampler.mode == "off"
        reasons["telemetry.sampler"] = no_gpu or not_ended
        for name in ("cpu_s", "startup_cpu_s"):
            reasons[f"telemetry.sampler.{name}"] = self._off_reason if is_off else not_ended
        reasons["telemetry.sampler.rates"] = "no reading was taken"
        rates = self._store.rates
        none = {"interval_s": None, "taken": 0, "missed": 0, "lateness_p95_ms": None}
        return schema.Sampler(
            mode=self._sampler.mode,
            **rates.get("fast", none),
            cpu_s=self._store.end["cpu_s"],
            startup_cpu_s=self._store.end["startup_cpu_s"],
            rates={name: schema.SamplingRate(**rate) for name, rate in rates.items()},
        )

    def nvml_status(self, device: FrameworkDevice | None, seconds: float) -> NvmlStatus:
        """NVML's status; if ``device`` is a GPU, also how each metric could be read within ``seconds``."""
        self._store.has_inventory.wait(START_TIMEOUT_S)
        is_watched = device is not None and query_of(device) is not None
        if device is not None and is_watched:
            self.attach(device)
            # GPM needs two readings. The wait ends early if the sampler ends.
            self._store.ended.wait(seconds)
        observation = self.stop([])
        no_answer = self._off_reason if self._sampler.mode == "off" else "NVML did not answer"
        driver, error = self._store.inventory["driver_version"], self._store.inventory["error"]
        return NvmlStatus(
            available=driver is not None,
            driver_version=driver,
            # Without the MIG devices.
            devices=tuple(
                device for device in conditions.devices(self._store) if not (device.uuid or "").startswith("MIG-")
            ),
            error=None if driver is not None else error or no_answer,
            capabilities=observation.telemetry.capabilities if is_watched else {},
        )


def probe(device: FrameworkDevice | None = None, *, seconds: float = 1.0) -> NvmlStatus:
    """NVML's status for ``doctor``; see :meth:`RunMonitor.nvml_status`."""
    return RunMonitor(time.monotonic, Options(), gpu_untouched=True).nvml_status(device, seconds)


def query_of(device: FrameworkDevice) -> DeviceQuery | None:
    """The query for the GPU to sample; ``None`` if there is none."""
    uuid, pci_bus_id = device.uuid, device.pci_bus_id
    if device.kind == "cpu":
        uuid, pci_bus_id = os.environ.get(WATCH_GPU_VARIABLE, "").strip() or None, None
        if uuid is None:
            return None
    return DeviceQuery(
        uuid=uuid,
        pci_bus_id=pci_bus_id,
        index=device.index,
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        device_order=os.environ.get("CUDA_DEVICE_ORDER"),
        is_named_by_user=device.kind == "cpu",
    )
