"""The door: start watching, say which device, mark the phases, stop and get what was observed."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from jobs.report import schema
from jobs.telemetry.phase_metrics import PhaseMetrics
from jobs.telemetry.sample_store import SampleStore
from jobs.telemetry.sampler.messages import DeviceFacts, DeviceQuery, Settings, all_unknown
from jobs.telemetry.sampler_process import NoSampler, ProcessSampler, Sampler, ThreadSampler
from jobs.telemetry.timeseries import to_time_series
from jobs.telemetry.types import LiveReading, NvmlDevice, NvmlStatus, Observation, Options
from jobs.telemetry.validity import foreign_work_warnings, judge, training_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobs.adapter import FrameworkDevice
    from jobs.phases import Span

GREET_TIMEOUT_S: Final = 5.0
STOP_TIMEOUT_S: Final = 1.5
WATCH_GPU_VARIABLE: Final = "MNIST_JOBS_WATCH_GPU"
"""UUID of a GPU to watch during a job on the CPU, which does not use it: to see, or to test, the telemetry."""
OFF: Final = "telemetry is off (--telemetry off)"
ON_CPU: Final = "the job ran on the CPU"


def watch(*, clock: Callable[[], float], options: Options | None = None, gpu_untouched: bool = True) -> RunMonitor:
    """Start watching.

    ``clock`` is the phases' clock, which must run as the monotonic clock does. ``gpu_untouched``: this process
    has not used a GPU yet, so what is found in use there is another's.
    """
    return RunMonitor(clock, options or Options(), gpu_untouched=gpu_untouched)


class RunMonitor:
    """One run's telemetry. Nothing here raises because of NVML, and nothing waits for it for long."""

    def __init__(self, clock: Callable[[], float], options: Options, *, gpu_untouched: bool) -> None:
        self._options = options
        self._offset_s = clock() - time.monotonic()
        self._settings = Settings(
            fast_s=options.fast_s,
            gpm_s=options.gpm_s,
            slow_s=options.slow_s,
            process_id=os.getpid(),
            gpu_untouched=gpu_untouched,
        )
        self._record = SampleStore()
        self._warnings: list[schema.RunWarning] = []
        self._wanted: DeviceQuery | None = None
        self._on_gpu = False
        self._untouched_until_s = 0.0
        self._off = OFF
        self._no_facts = "the run ended before a device was chosen"
        self._observation: Observation | None = None
        self._sampler = self._start()

    def _start(self) -> Sampler:
        if self._options.mode == "off":
            return NoSampler(self._record)
        if self._options.mode == "process":
            try:
                return ProcessSampler(self._settings, self._record)
            except OSError as error:
                self.warn("telemetry_in_thread", f"no process for the sampler could be started ({error})")
        return self._start_threads()

    def _start_threads(self) -> Sampler:
        try:
            return ThreadSampler(self._settings, self._record)
        except RuntimeError as error:
            # A limit on processes is one on threads, too.
            self._off = f"no sampler could be started ({error})"
            self.warn("telemetry_failed", self._off)
            return NoSampler(self._record)

    def attach(self, device: FrameworkDevice, *, untouched_until_s: float | None = None) -> DeviceFacts:
        """Tell which device the job uses; what NVML knows of it comes back.

        Until ``untouched_until_s`` on the monotonic clock (else: now) the job cannot have used it.
        """
        self._untouched_until_s = time.monotonic() if untouched_until_s is None else untouched_until_s
        self._on_gpu = device.kind == "gpu"
        self._wanted = _wanted(device)
        if self._wanted is not None and not self._on_gpu:
            self.warn("watched_gpu_not_used", f"the job ran on the CPU; {self._wanted.uuid} was watched, not used")
        self._ask()
        ended = self._record.ended.is_set() and self._record.facts is None
        if self._sampler.mode == "process" and ended and not self._sampler.crashed:
            self.warn("telemetry_in_thread", f"the sampler's process ended at once ({self._failure()})")
            self._record = SampleStore()
            self._sampler.stop(0.0)
            self._sampler = self._start_threads()
            self._ask()
        if self._record.facts is not None:
            return self._record.facts
        self._no_facts = self._no_facts_reason()
        return DeviceFacts(null_reasons=all_unknown(self._no_facts))

    def _ask(self) -> None:
        wanted = self._wanted and asdict(self._wanted)
        self._sampler.send({"kind": "attach", "wanted": wanted, "untouched_until_s": self._untouched_until_s})
        self._record.attached.wait(GREET_TIMEOUT_S)

    def _no_facts_reason(self) -> str:
        if self._sampler.mode == "off":
            return self._off
        if self._record.ended.is_set():
            return f"the sampler failed: {self._failure()}"
        return f"NVML did not answer within {GREET_TIMEOUT_S:.0f} s"

    def _failure(self) -> str:
        return next(iter(self._record.failures), "it said nothing")

    def mark(self) -> None:
        """A phase ends and another begins: what counts up is read now."""
        self._sampler.send({"kind": "mark"})

    def latest(self) -> LiveReading:
        return self._record.latest()

    def stop(self, spans: Sequence[Span]) -> Observation:
        """Stop sampling, which takes at most 2 s, and aggregate by phase; a second call answers the same."""
        if self._observation is None:
            self._sampler.stop(STOP_TIMEOUT_S)
            try:
                self._observation = self._observe(spans)
            except Exception as error:  # noqa: BLE001 - a run that was trained is reported, whatever this is
                self._observation = self._nothing(spans, f"the readings could not be aggregated: {error!r}")
        return self._observation

    def _nothing(self, spans: Sequence[Span], reason: str) -> Observation:
        self.warn("telemetry_failed", reason)
        paths = ("phases[].gpu", "phases[].host", "training", "timeseries", "telemetry.sampler")
        sampler = schema.Sampler(
            mode=self._sampler.mode, interval_s=None, taken=0, missed=0, lateness_p95_ms=None, cpu_s=None
        )
        return Observation(
            telemetry=schema.Telemetry(available=False, capabilities={}, sampler=sampler),
            gpu=(None,) * len(spans),
            host=(None,) * len(spans),
            training=None,
            validity=judge(on_gpu=self._on_gpu, training=None, warnings=self._warnings),
            timeseries=None,
            null_reasons=dict.fromkeys(paths, reason),
            warnings=tuple(self._warnings),
        )

    def _observe(self, spans: Sequence[Span]) -> Observation:
        record = self._record
        self._warn_of_the_sampler()
        reasons: dict[str, str] = {}
        figures = PhaseMetrics(record, self._options, self._offset_s, self._absent())
        stretches = [(span.start_s, span.end_s) for span in spans]
        train = [(span.start_s, span.end_s) for span in spans if span.name == "train"]
        on = self._sampler.mode != "off"
        reasons |= {} if on else {"phases[].host": self._off, "training.host": self._off}
        training = self._training(figures, train, reasons) if train else None
        reasons["training"] = "the run did not get as far as steady training"
        if training is not None:
            self._warnings += training_warnings(training)
        if self._on_gpu:
            self._warnings += foreign_work_warnings(record.baseline, record.other_process_count)
        timeseries = to_time_series(figures.columns())
        reasons["timeseries"] = "no reading was taken" if on else self._off
        return Observation(
            telemetry=schema.Telemetry(
                available=figures.absent is None,
                capabilities=figures.capabilities(reasons),
                sampler=self._sampler_account(reasons),
            ),
            gpu=tuple(figures.gpu([stretch], "phases[].gpu", reasons) for stretch in stretches),
            host=tuple(figures.host([stretch], "phases[].host", reasons) if on else None for stretch in stretches),
            training=training,
            validity=judge(on_gpu=self._on_gpu, training=training, warnings=self._warnings),
            timeseries=timeseries,
            null_reasons=reasons,
            warnings=tuple(self._warnings),
        )

    def _training(
        self, figures: PhaseMetrics, train: list[tuple[float, float]], reasons: dict[str, str]
    ) -> schema.TrainingSummary:
        return schema.TrainingSummary(
            duration_s=sum(end_s - start_s for start_s, end_s in train),
            gpu=figures.gpu(train, "training.gpu", reasons),
            host=figures.host(train, "training.host", reasons) if self._sampler.mode != "off" else None,
        )

    def _absent(self) -> str | None:
        """Why the GPU has no figures at all; ``None`` where it may have some."""
        record = self._record
        if self._sampler.mode == "off":
            return self._off
        if self._wanted is None:
            return ON_CPU
        if record.facts is None:
            return record.nvml_error or self._no_facts
        return record.gpu_error

    def _warn_of_the_sampler(self) -> None:
        record = self._record
        if self._sampler.mode == "off":
            return
        if record.failures:
            self.warn("telemetry_failed", f"the sampler failed: {self._failure()}")
        elif record.ended.is_set() and record.cpu_s is None and self._sampler.mode == "process":
            self.warn("telemetry_died", "the sampler's process ended before the run did; later figures are missing")
        elif not record.gpu_ended:
            self.warn("telemetry_hangs", "an NVML call hangs; figures after it are missing")

    def warn(self, code: str, message: str) -> None:
        """Add a warning to the report; some make the run suspect."""
        self._warnings.append(schema.RunWarning(code=code, message=message))

    def _sampler_account(self, reasons: dict[str, str]) -> schema.Sampler:
        record = self._record
        rates = {name: schema.SamplingRate(**rate) for name, rate in record.rates.items()}
        fast = rates.get("fast")
        why = self._off if self._sampler.mode == "off" else self._absent() or "the sampler did not end in time"
        path = "telemetry.sampler"
        reasons |= {f"{path}.{name}": why for name in ("interval_s", "planned", "late", "lateness_p95_ms")}
        reasons |= {f"{path}.{name}": "the sampler did not end in time" for name in ("cpu_s", "startup_cpu_s")}
        reasons |= {f"{path}.rates.{name}.lateness_p95_ms": "no reading was taken" for name in rates}
        return schema.Sampler(
            mode=self._sampler.mode,
            interval_s=None if fast is None else fast.interval_s,
            planned=None if fast is None else fast.planned,
            taken=0 if fast is None else fast.taken,
            missed=0 if fast is None else fast.missed,
            late=None if fast is None else fast.late,
            lateness_p95_ms=None if fast is None else fast.lateness_p95_ms,
            cpu_s=record.cpu_s,
            startup_cpu_s=record.startup_cpu_s,
            rates=rates,
        )


def _wanted(device: FrameworkDevice) -> DeviceQuery | None:
    uuid, pci_bus_id = device.uuid, device.pci_bus_id
    if device.kind == "cpu":
        uuid, pci_bus_id = os.environ.get(WATCH_GPU_VARIABLE) or None, None
        if uuid is None:
            return None
    return DeviceQuery(
        uuid=uuid,
        pci_bus_id=pci_bus_id,
        index=device.index,
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        device_order=os.environ.get("CUDA_DEVICE_ORDER"),
    )


def probe(device: FrameworkDevice | None = None, *, seconds: float = 1.0) -> NvmlStatus:
    """What NVML offers here, for ``doctor``; of ``device``, if it is a GPU, what each metric can do in ``seconds``."""
    watching = RunMonitor(time.monotonic, Options(), gpu_untouched=True)
    record = watching._record  # noqa: SLF001 - the other half of this module
    record.greeted.wait(GREET_TIMEOUT_S)
    watched = device is not None and _wanted(device) is not None
    if device is not None and watched:
        watching.attach(device)
        # GPM needs two readings; the end of the sampler, should it come first, ends the wait.
        record.ended.wait(seconds)
    observation = watching.stop([])
    answered = record.greeted.is_set() and record.nvml_error is None and record.driver_version is not None
    return NvmlStatus(
        available=answered,
        driver_version=record.driver_version,
        devices=tuple(NvmlDevice(**device) for device in record.devices),
        error=None if answered else record.nvml_error or "NVML did not answer",
        capabilities=observation.telemetry.capabilities if watched else {},
    )
