"""The GPU's loop: the only thread that calls NVML, so that a call that hangs holds up nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pynvml

from jobs.telemetry.metrics import metrics_read_at
from jobs.telemetry.sampler.device_lookup import describe, find, inventory
from jobs.telemetry.sampler.gpm import GpmReader
from jobs.telemetry.sampler.gpu import BufferReader, PolledReader, XidReader
from jobs.telemetry.sampler.loop import MIN_MARK_INTERVAL_S, SamplerLoop
from jobs.telemetry.sampler.nvml import NvmlUnavailable, cuda_driver_version, driver_version, process_count, try_call
from jobs.telemetry.types import DeviceQuery

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import MessageWriter
    from jobs.telemetry.types import Options


class GpuLoop(SamplerLoop):
    """Opens NVML, finds the job's GPU once it is told which, and reads it until told to stop."""

    device: GpuReaders | None = None

    def sample(self) -> None:
        failed = try_call(pynvml.nvmlInit)
        nvml_error = str(failed) if isinstance(failed, NvmlUnavailable) else None
        self._send_inventory(nvml_error)
        kind = ""
        while kind != "stop":
            message = self.next_message()
            kind = message["kind"] if message is not None else ""
            if message is not None and kind == "attach":
                self.attach(message["query"], nvml_error)
            self.read_due()
            if kind == "mark" and self.device is not None:
                self.device.read_counters()
        self.finish()
        if nvml_error is None:
            try_call(pynvml.nvmlShutdown)

    def _send_inventory(self, error: str | None) -> None:
        """Before the framework has touched a GPU, while it is still being imported."""
        driver, devices = None, []
        if error is None:
            try:
                devices, driver = inventory(), driver_version()
            except NvmlUnavailable as unavailable:
                error = str(unavailable)
        self._writer.send("inventory", driver_version=driver, devices=devices, at_s=time.monotonic(), error=error)

    def attach(self, query: dict[str, Any] | None, nvml_error: str | None) -> None:
        """Send what is known of the job's device, and start to read it; without a query the driver's version only."""
        facts: dict[str, Any] = {}
        errors: dict[str, str] = {}
        error, handle = nvml_error, None
        if error is None:
            try:
                if query is None:
                    facts = {"driver_version": driver_version(), "cuda_driver_version": cuda_driver_version()}
                else:
                    handle, method = find(DeviceQuery(**query))
                    facts, errors = describe(handle, method)
            except NvmlUnavailable as unavailable:
                error = str(unavailable)
        self._writer.send("device", facts=facts, errors=errors, error=error)
        if error is None and handle is not None:
            self.device = GpuReaders(handle, self._options, self._writer)
            self.start_rates(fast=self._options.fast_s, gpm=self._options.gpm_s, slow=self._options.slow_s)

    def read_due(self) -> None:
        """Make the readings that are due. Each has its own time: a slow call before it must not date it."""
        if self.device is None:
            return
        device = self.device
        for name, read in (("fast", device.fast.read), ("gpm", device.gpm.read), ("slow", device.read_slow)):
            rate = self._rates[name]
            now_s = time.monotonic()
            if rate.begin(now_s):
                self._writer.add_sample(now_s, read())
                rate.end(time.monotonic())

    def finish(self) -> None:
        others = None if self.device is None else self.device.finish()
        self._writer.send("gpu_end", rates=self.account(), other_process_count=others)


class GpuReaders:
    """All readers of one device. No reading raises."""

    def __init__(self, handle: Any, options: Options, writer: MessageWriter) -> None:
        self._handle = handle
        self._writer = writer
        self.fast = PolledReader(handle, metrics_read_at("fast"), writer)
        self.gpm = GpmReader(handle, options.gpm_s, writer)
        self._slow = PolledReader(handle, metrics_read_at("slow"), writer)
        self._counters = PolledReader(handle, metrics_read_at("boundary"), writer)
        self._counted_s = 0.0
        self._xids = XidReader(handle, writer)
        self._buffer = BufferReader(handle, writer)

    def read_counters(self) -> None:
        """At the slow rate and at the ends of phases, so that each phase has its own count."""
        now_s = time.monotonic()
        if now_s - self._counted_s >= MIN_MARK_INTERVAL_S:
            self._counted_s = now_s
            self._writer.add_sample(now_s, self._counters.read())
            self._xids.read()

    def read_slow(self) -> dict[str, float]:
        self.read_counters()
        self._buffer.read()
        return self._slow.read()

    def finish(self) -> int | None:
        """Read the counters and events a last time; the number of other processes on the device, if known.

        NVML gives the host's process ids, which mean nothing inside a container: one process is taken to be the job.
        """
        self.read_counters()
        self._xids.read()
        self._buffer.read()
        self.gpm.close()
        self._xids.close()
        count = process_count(self._handle)
        return None if count is None else max(0, count - 1)
