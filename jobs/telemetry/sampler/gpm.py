"""GPU Performance Monitoring (GPM), Hopper and later: how much of the GPU was in use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.telemetry.metrics import metrics_read_at
from jobs.telemetry.sampler.nvml import NvmlUnavailable, call, gpu_and_instance, try_call

if TYPE_CHECKING:
    from jobs.telemetry.sampler.loop import MessageWriter

METRICS: Final = metrics_read_at("gpm")


class GpmReader:
    """Reads means over the time between two readings, of a GPU or a MIG device."""

    def __init__(self, handle: Any, interval_s: float, writer: MessageWriter) -> None:
        self._interval_s = interval_s
        self._writer = writer
        self._samples: list[Any] = []
        self._has_previous = False
        self._offered = True
        try:
            self._prepare(handle)
        except NvmlUnavailable as error:
            self._offered = False
            self._record_error(error)

    def _prepare(self, handle: Any) -> None:
        # A MIG device's counters are read through its GPU.
        self._gpu, self._instance = gpu_and_instance(handle)
        if not call(pynvml.nvmlGpmQueryDeviceSupport, self._gpu).isSupportedDevice:
            raise NvmlUnavailable(pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED))
        while len(self._samples) < 2:
            self._samples.append(call(pynvml.nvmlGpmSampleAlloc))

    def read(self) -> dict[str, float]:
        """Means since the last call; empty the first time, and after a call that failed."""
        if not self._offered:
            return {}
        try:
            previous, sample = self._samples
            if self._instance is None:
                call(pynvml.nvmlGpmSampleGet, self._gpu, sample)
            else:
                call(pynvml.nvmlGpmMigSampleGet, self._gpu, self._instance, sample)
            self._samples = [sample, previous]
            values = self._values_between(previous, sample) if self._has_previous else {}
            self._has_previous = True
        except NvmlUnavailable as error:
            # The next good sample must not cover the time of the failure.
            self._has_previous = False
            self._offered = not error.is_permanent
            self._record_error(error)
            return {}
        return values

    def close(self) -> None:
        """Free the driver's samples."""
        self._offered = False
        for sample in self._samples:
            try_call(pynvml.nvmlGpmSampleFree, sample)
        self._samples = []

    def _values_between(self, earlier: Any, later: Any) -> dict[str, float]:
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        request.sample1, request.sample2 = earlier, later
        numbers = {metric: try_call(getattr, pynvml, metric.sources[0].argument) for metric in METRICS}
        known = [metric for metric, number in numbers.items() if not isinstance(number, NvmlUnavailable)]
        for metric in numbers.keys() - known:
            self._writer.record_error(metric.name, str(numbers[metric]))
        request.numMetrics = len(known)
        for index, metric in enumerate(known):
            request.metrics[index].metricId = numbers[metric]
        call(pynvml.nvmlGpmMetricsGet, request)
        values = {}
        for metric, answer in zip(known, request.metrics, strict=False):
            (source,) = metric.sources
            if answer.nvmlReturn != pynvml.NVML_SUCCESS:
                self._writer.record_error(metric.name, str(NvmlUnavailable(pynvml.NVMLError(answer.nvmlReturn))))
            elif not math.isfinite(answer.value):
                self._writer.record_error(metric.name, f"GPM gave {answer.value}")
            else:
                values[metric.name] = answer.value * source.factor
                self._writer.record_ok(metric.name, source.name, self._interval_s)
        return values

    def _record_error(self, error: NvmlUnavailable) -> None:
        for metric in METRICS:
            self._writer.record_error(metric.name, str(error))
