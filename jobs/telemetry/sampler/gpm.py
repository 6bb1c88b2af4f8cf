"""GPU Performance Monitoring, Hopper and later: how full the GPU was between two readings, not just whether busy."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

import pynvml

from jobs.telemetry.sampler.device_lookup import parent_of
from jobs.telemetry.sampler.nvml import NvmlUnavailable, call

if TYPE_CHECKING:
    from jobs.telemetry.sampler.status import StatusBoard

MIB: Final = 2**20

METRICS: Final = {
    "graphics_util_percent": (pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL, 1.0),
    "sm_util_percent": (pynvml.NVML_GPM_METRIC_SM_UTIL, 1.0),
    "sm_occupancy_percent": (pynvml.NVML_GPM_METRIC_SM_OCCUPANCY, 1.0),
    "tensor_util_percent": (pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL, 1.0),
    "hmma_util_percent": (pynvml.NVML_GPM_METRIC_HMMA_TENSOR_UTIL, 1.0),
    "fp32_util_percent": (pynvml.NVML_GPM_METRIC_FP32_UTIL, 1.0),
    "dram_bandwidth_util_percent": (pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL, 1.0),
    "pcie_tx_bytes_per_s": (pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC, float(MIB)),
    "pcie_rx_bytes_per_s": (pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC, float(MIB)),
}
"""Our name: NVML's metric and the factor to our unit (PCIe is given in MiB/s)."""


class GpmReader:
    """Means over the time between two readings, on a GPU or one MIG device of it."""

    def __init__(self, handle: Any, interval_s: float, status: StatusBoard) -> None:
        self._handle = handle
        self._interval_s = interval_s
        self._status = status
        self._gpu = handle
        self._instance: int | None = None
        self._samples: list[Any] = []
        self._begun = False
        self._offered = True
        try:
            self._prepare()
        except NvmlUnavailable as error:
            self._refuse(str(error))

    def _prepare(self) -> None:
        parent = parent_of(self._handle)
        if parent is not None:
            # A MIG device's counters are read through its GPU and the number of its GPU instance.
            self._gpu = parent
            self._instance = int(call(pynvml.nvmlDeviceGetGpuInstanceId, self._handle))
        support = call(pynvml.nvmlGpmQueryDeviceSupport, self._gpu)
        if not support.isSupportedDevice:
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
            if not self._begun:
                self._begun = True
                return {}
            return self._between(previous, sample)
        except NvmlUnavailable as error:
            # The time until the next good sample is not covered by it: it would hide the hole.
            self._begun = False
            if error.final:
                self._refuse(str(error))
            else:
                self._fail(str(error))
            return {}

    def close(self) -> None:
        """Give the driver's samples back."""
        self._offered = False
        for sample in self._samples:
            with contextlib.suppress(NvmlUnavailable):
                call(pynvml.nvmlGpmSampleFree, sample)
        self._samples = []

    def _between(self, earlier: Any, later: Any) -> dict[str, float]:
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(METRICS)
        request.sample1, request.sample2 = earlier, later
        for index, (metric, _) in enumerate(METRICS.values()):
            request.metrics[index].metricId = metric
        call(pynvml.nvmlGpmMetricsGet, request)
        found: dict[str, float] = {}
        for index, (name, (_, factor)) in enumerate(METRICS.items()):
            metric = request.metrics[index]
            if metric.nvmlReturn != pynvml.NVML_SUCCESS:
                self._status.failed(name, str(NvmlUnavailable(pynvml.NVMLError(metric.nvmlReturn))))
            elif not math.isfinite(metric.value):
                self._status.failed(name, f"GPM gave {metric.value}")
            else:
                found[name] = metric.value * factor
                self._status.works(name, source="GPM", window_s=self._interval_s)
        return found

    def _fail(self, error: str) -> None:
        for name in METRICS:
            self._status.failed(name, error)

    def _refuse(self, error: str) -> None:
        self._offered = False
        self._fail(error)
