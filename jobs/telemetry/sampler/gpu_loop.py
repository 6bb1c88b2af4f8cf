"""The GPU's loop. Only its threads call NVML, so that a hanging call blocks nothing else."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pynvml

from jobs.telemetry.sampler.device_lookup import (
    default_power_limit_w,
    describe,
    describe_driver,
    enforced_power_limit_w,
    find,
    inventory,
)
from jobs.telemetry.sampler.gpu import GpuSampler
from jobs.telemetry.sampler.loop import SamplerLoop
from jobs.telemetry.sampler.nvml import NvmlUnavailable, compute_processes, driver_version, try_call
from jobs.telemetry.types import DeviceQuery

if TYPE_CHECKING:
    from jobs.telemetry.sampler.loop import MessageWriter
    from jobs.telemetry.types import Options


class GpuLoop(SamplerLoop):
    """Opens NVML, finds the job's GPU on an ``attach`` message, and reads it until a ``stop`` message."""

    gpu: GpuSampler | None = None

    def __init__(self, options: Options, process_id: int, writer: MessageWriter) -> None:
        """``process_id`` is the job's."""
        super().__init__(options, writer)
        self._process_id = process_id

    def sample(self) -> None:
        failed = try_call(pynvml.nvmlInit)
        nvml_error = str(failed) if isinstance(failed, NvmlUnavailable) else None
        send_inventory = partial(self.run_reported, partial(self._send_inventory, nvml_error))
        # Another thread, so that a GPU whose calls never return takes nothing from the job's own.
        others = threading.Thread(target=send_inventory, name="inventory", daemon=True)
        try:
            others.start()
        except RuntimeError:  # a limit on threads
            send_inventory()
        try:
            self._sample(nvml_error)
        finally:
            # The library must not be closed during a call.
            if nvml_error is None and not others.is_alive():
                try_call(pynvml.nvmlShutdown)

    def _sample(self, nvml_error: str | None) -> None:
        kind = ""
        while kind != "stop":
            message = self.next_message()
            kind = message["kind"]
            if kind == "attach":
                self.attach(message["query"], nvml_error)
            if self.gpu is not None:
                self.gpu.read_due(self._rates)
                if kind == "mark":
                    self.gpu.read_counters()
        self.finish()

    def _send_inventory(self, error: str | None) -> None:
        """Send the devices and their use; called while the framework, which may use a GPU, is still being imported."""
        answer: dict[str, Any] = {"driver_version": None, "devices": [], "error": error}
        try:
            if error is None:
                answer["devices"] = inventory()
                answer["driver_version"] = driver_version()
        except NvmlUnavailable as unavailable:
            answer["error"] = str(unavailable)
        self._writer.send("inventory", **answer, at_s=time.monotonic())

    def attach(self, query: dict[str, Any] | None, nvml_error: str | None) -> None:
        """Send the driver's versions and the job's device, and start to read it; without a query only the versions."""
        answer: dict[str, Any] = {"facts": {}, "errors": {}, "error": nvml_error, "default_power_limit_w": None}
        handle = None
        if nvml_error is None:
            answer["facts"], answer["errors"] = describe_driver()
        if nvml_error is None and query is not None:
            try:
                handle, method = find(DeviceQuery(**query))
                facts, errors = describe(handle, method)
                answer["facts"] |= facts
                answer["errors"] |= errors
                answer["default_power_limit_w"] = default_power_limit_w(handle)
            except NvmlUnavailable as error:
                answer["error"] = str(error)
        self._writer.send("device", **answer)
        if handle is not None:
            self.gpu = GpuSampler(handle, self._options, self._writer)
            self.start_rates(fast=self._options.fast_s, gpm=self._options.gpm_s, slow=self._options.slow_s)

    def finish(self) -> None:
        """Read a last time, and send what is known only at the end."""
        others, are_all_listed, servers, limit_w = None, False, 0, None
        if self.gpu is not None:
            self.gpu.finish()
            processes, limit = (try_call(ask, self.gpu.handle) for ask in (compute_processes, enforced_power_limit_w))
            limit_w = None if isinstance(limit, NvmlUnavailable) else limit
            if not isinstance(processes, NvmlUnavailable):
                others, are_all_listed = processes.others_than(self._process_id)
                servers = processes.mps_servers
        self._writer.send(
            "gpu_end",
            rates=self.statistics(),
            other_process_count=others,
            are_all_listed=are_all_listed,
            mps_servers=servers,
            power_limit_w=limit_w,
        )
