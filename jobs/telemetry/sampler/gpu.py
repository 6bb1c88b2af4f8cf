"""Reads one GPU or MIG device: every metric by the best source that this GPU and driver offer."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.telemetry.metrics import GPU_METRICS, POLLED_THROTTLING, metrics_read_at
from jobs.telemetry.sampler.gpm import GpmReader
from jobs.telemetry.sampler.loop import MIN_MARK_INTERVAL_S
from jobs.telemetry.sampler.nvml import (
    NvmlUnavailable,
    call,
    field_id,
    field_value,
    gpu_and_instance,
    try_call,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.telemetry.metrics import Metric, NvmlSource
    from jobs.telemetry.sampler.loop import MessageWriter, Rate
    from jobs.telemetry.types import Options

UINT32_RANGE: Final = 2.0**32

XID: Final = "xid_errors"

MAX_EVENTS: Final = 100
"""Events read at once; a GPU that reports without end must not block the loop."""

ALL_INSTANCES: Final = 0xFFFF_FFFF
"""An event's GPU instance if it does not belong to one MIG device (``nvmlEventData_t``)."""

CLOCK_TOLERANCE_S: Final = 30.0
"""Maximum age of the buffer's newest sample. The clocks that it may use differ by far more."""

NO_ANSWER: Final = NvmlUnavailable(LookupError("NVML did not answer for this field"))

NO_NEW_SAMPLES: Final = frozenset({pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_NO_DATA})


class GpuSampler:
    """All readers of one device. No reading raises."""

    def __init__(self, handle: Any, options: Options, writer: MessageWriter) -> None:
        self.handle = handle
        self._writer = writer
        self._fast = PolledReader(handle, (*metrics_read_at("fast"), *POLLED_THROTTLING), writer)
        self._slow, self._counters = (
            PolledReader(handle, metrics_read_at(when), writer) for when in ("slow", "boundary")
        )
        self._gpm = GpmReader(handle, options.gpm_s, writer)
        self._xids = XidReader(handle, writer)
        self._buffer = BufferReader(handle, writer)
        self._counters_read_s = 0.0

    def read_due(self, rates: dict[str, Rate]) -> None:
        """Make the readings that are due. Each gets its own time, since the call before it may have been slow."""
        for name, read in (("fast", self._fast.read), ("gpm", self._gpm.read), ("slow", self._read_slow)):
            now_s = time.monotonic()
            if rates[name].begin(now_s):
                self._writer.add_sample(now_s, read())
                rates[name].end(time.monotonic())

    def _read_slow(self) -> dict[str, float]:
        self.read_counters()
        self._buffer.read()
        return self._slow.read()

    def read_counters(self) -> None:
        """Read counters and events; called at the slow rate and at phase boundaries."""
        now_s = time.monotonic()
        if now_s - self._counters_read_s >= MIN_MARK_INTERVAL_S:
            self._counters_read_s = now_s
            self._writer.add_sample(now_s, self._counters.read())
            self._xids.read()

    def finish(self) -> None:
        """Read counters and events a last time."""
        self.read_counters()
        self._xids.read()
        self._buffer.read()
        self._gpm.close()
        self._xids.close()


class PolledReader:
    """Reads metrics together. A failure affects no other metric; a source that is not offered is not read again."""

    def __init__(self, handle: Any, metrics: Iterable[Metric], writer: MessageWriter) -> None:
        self._handle = handle
        self._writer = writer
        self._sources = {metric: list(metric.sources) for metric in metrics}
        self._field_ids: dict[str, int] = {}
        self._last_raw: dict[str, float] = {}
        self._wrapped: dict[str, float] = {}
        self._capability: tuple[int, int] | None = None

    def read(self) -> dict[str, float]:
        """The metrics that could be read now, by name, in their units."""
        values: dict[str, float] = {}
        pending = [metric for metric, sources in self._sources.items() if sources]
        while pending:
            answers = self._ask(dict.fromkeys(self._sources[metric][0] for metric in pending))
            next_source = []
            for metric in pending:
                sources = self._sources[metric]
                source, answer = sources[0], answers[sources[0]]
                if isinstance(answer, NvmlUnavailable):
                    self._writer.record_error(metric.name, str(answer))
                    if answer.is_permanent:
                        sources.pop(0)
                        next_source += [metric] if sources else []
                    continue
                value, is_32_bit = answer
                if is_32_bit and metric.aggregation == "delta":
                    value = self._unwrap(metric.name, value)
                values[metric.name] = value * source.factor
                self._writer.record_ok(metric.name, source.name, self._window_s(source))
            pending = next_source
        return values

    def _window_s(self, source: NvmlSource) -> float | None:
        """The time over which one of the source's readings is an average on this GPU; ``None``: it is an instant."""
        if source.instant_until is None:
            return source.window_s
        if self._capability is None:
            answer = try_call(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(gpu_and_instance(self._handle)[0]))
            # If it is not known, an average: then no reading counts that may include time before the phase.
            self._capability = (99, 0) if isinstance(answer, NvmlUnavailable) else tuple(answer)
        return None if self._capability <= source.instant_until else source.window_s

    def _ask(self, sources: Iterable[NvmlSource]) -> dict[NvmlSource, Any]:
        """By source: its value and whether that has only 32 bits, or an error. Each function is called once."""
        answers: dict[NvmlSource, Any] = {}
        results: dict[tuple[str, ...], Any] = {}
        fields: dict[int, NvmlSource] = {}
        for source in sources:
            if source.name.startswith("NVML_FI_"):
                answers[source] = self._field_id(source.name)
                if isinstance(answers[source], int):
                    fields[answers[source]] = source
                continue
            names = (source.function or source.name, *filter(None, [source.argument]))
            if names not in results:
                results[names] = try_call(_call_by_name, self._handle, *names)
            answers[source] = try_call(_number, results[names], source)
        return answers | self._ask_fields(fields)

    def _field_id(self, name: str) -> int | NvmlUnavailable:
        if name not in self._field_ids:
            answer = try_call(field_id, name)
            if isinstance(answer, NvmlUnavailable):
                return answer
            self._field_ids[name] = answer
        return self._field_ids[name]

    def _ask_fields(self, fields: dict[int, NvmlSource]) -> dict[NvmlSource, Any]:
        """As :meth:`_ask`, of field values, which one call reads."""
        if not fields:
            return {}
        entries = try_call(pynvml.nvmlDeviceGetFieldValues, self._handle, list(fields))
        if isinstance(entries, NvmlUnavailable):
            return dict.fromkeys(fields.values(), entries)
        answers: dict[NvmlSource, Any] = dict.fromkeys(fields.values(), NO_ANSWER)
        # An entry of an id that was not asked for is not used.
        known = [entry for entry in entries if entry.fieldId in fields]
        return answers | {fields[entry.fieldId]: try_call(field_value, entry) for entry in known}

    def _unwrap(self, name: str, raw: float) -> float:
        """Continue a 32-bit counter past 2**32. A fall from the lower half is a reset and is not changed."""
        if raw < self._last_raw.get(name, 0.0) and self._last_raw[name] > UINT32_RANGE / 2:
            self._wrapped[name] = self._wrapped.get(name, 0.0) + UINT32_RANGE
        self._last_raw[name] = raw
        return raw + self._wrapped.get(name, 0.0)


def _call_by_name(handle: Any, function: str, *constants: str) -> Any:
    """Call a function of the binding; names are looked up here, so that a missing one is an error of this reading."""
    return getattr(pynvml, function)(handle, *(getattr(pynvml, name) for name in constants))


def _number(result: Any, source: NvmlSource) -> tuple[float, bool]:
    """The source's number in a function's result, and that it has 64 bits; raises the result if it is an error."""
    if isinstance(result, NvmlUnavailable):
        raise result
    value = getattr(result, source.member) if source.member else result
    return float(bool(value & source.mask) if source.mask else value), False


class BufferReader:
    """Reads the driver's buffer of utilization samples, which has no gaps and is finer than polling."""

    def __init__(self, handle: Any, writer: MessageWriter) -> None:
        self._handle = handle
        self._writer = writer
        self._constants = {f"{m.name}.buffered": f"NVML_{m.buffer}_SAMPLES" for m in GPU_METRICS if m.buffer}
        self._last_timestamp = dict.fromkeys(self._constants, 0)
        self._spacing_s: dict[str, float] = {}
        self._started_s = time.monotonic()

    def read(self) -> None:
        """Pass on each new sample, on the monotonic clock."""
        samples = []
        for name in list(self._constants):
            try:
                samples += self._new_samples(name)
            except NvmlUnavailable as error:
                if error.code in NO_NEW_SAMPLES:
                    continue
                self._writer.record_error(name, str(error))
                if error.is_permanent:
                    del self._constants[name]
        for at_s, name, value in sorted(samples):
            self._writer.add_sample(at_s, {name: value})

    def _new_samples(self, name: str) -> list[tuple[float, str, float]]:
        last = self._last_timestamp[name]
        kind = call(getattr, pynvml, self._constants[name])
        _, samples = call(pynvml.nvmlDeviceGetSamples, self._handle, kind, last)
        new = sorted((s.timeStamp, s.sampleValue.uiVal) for s in samples if s.timeStamp > last)
        if not new:
            return []
        stamps = [stamp for stamp, _ in new]
        self._last_timestamp[name] = stamps[-1]
        offset_s = _clock_offset_s(stamps[-1] / 1e6)
        if offset_s is None:
            self._writer.record_error(name, f"the buffer's clock is not known (its newest time is {stamps[-1]} µs)")
            return []
        gaps = sorted(later - earlier for earlier, later in pairwise(stamps))
        if gaps and name not in self._spacing_s:
            self._spacing_s[name] = round(gaps[len(gaps) // 2] / 1e6, 4)
        self._writer.record_ok(name, "nvmlDeviceGetSamples", self._spacing_s.get(name))
        rows = [(stamp / 1e6 + offset_s, name, float(value)) for stamp, value in new]
        # Samples of the last second before the start mark where the first new sample's time begins.
        return [row for row in rows if row[0] >= self._started_s - 1.0]


def _clock_offset_s(newest_s: float) -> float | None:
    """Offset from the buffer's clock (wall clock or since boot) to the monotonic one; ``None`` if it is neither."""
    nows_s = [time.time(), time.monotonic()]
    if hasattr(time, "CLOCK_BOOTTIME"):
        nows_s.insert(1, time.clock_gettime(time.CLOCK_BOOTTIME))
    return next((nows_s[-1] - now_s for now_s in nows_s if abs(now_s - newest_s) <= CLOCK_TOLERANCE_S), None)


class XidReader:
    """Reads critical errors (XID) of the GPU or of one MIG device."""

    def __init__(self, handle: Any, writer: MessageWriter) -> None:
        self._writer = writer
        self._events: Any = None
        self._last_read_s = time.monotonic()
        try:
            # Events are registered for the whole GPU; each names its MIG device.
            gpu, self._instance = gpu_and_instance(handle)
            events = call(pynvml.nvmlEventSetCreate)
            call(pynvml.nvmlDeviceRegisterEvents, gpu, pynvml.nvmlEventTypeXidCriticalError, events)
        except NvmlUnavailable as error:
            writer.record_error(XID, str(error))
            return
        self._events = events
        writer.record_ok(XID, "nvmlEventSetWait_v2")

    def read(self) -> None:
        """Pass on the XID numbers since the last call, each with the time of that call; waits for none."""
        since_s, self._last_read_s = self._last_read_s, time.monotonic()
        for _ in range(MAX_EVENTS if self._events is not None else 0):
            event = try_call(pynvml.nvmlEventSetWait_v2, self._events, 0)
            if isinstance(event, NvmlUnavailable):
                # The usual answer is a timeout: nothing happened.
                if event.code != pynvml.NVML_ERROR_TIMEOUT:
                    self._writer.record_error(XID, str(event))
                    self._events = None if event.is_permanent else self._events
                return
            is_ours = self._instance is None or event.gpuInstanceId in {self._instance, ALL_INSTANCES}
            if is_ours and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                self._writer.add_sample(time.monotonic(), {XID: int(event.eventData), "xid_since_s": since_s})

    def close(self) -> None:
        if self._events is not None:
            try_call(pynvml.nvmlEventSetFree, self._events)
        self._events = None
