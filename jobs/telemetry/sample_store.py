"""Everything that the sampler has sent so far."""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.telemetry.aggregate import Series
from jobs.telemetry.types import LiveReading, MetricStatus

if TYPE_CHECKING:
    from jobs.telemetry.types import Message


class SampleStore:
    """Takes the sampler's messages from one thread; may be read from any other at any time."""

    def __init__(self) -> None:
        self.inventory: Message = {"driver_version": None, "devices": [], "at_s": 0.0, "error": None}
        """Driver and devices, and what was in use on them at ``at_s``."""
        self.device: Message | None = None
        """The job's device."""
        self.gpu_end: Message | None = None
        self.end: Message = {"cpu_s": None, "startup_cpu_s": None}
        self.rates: dict[str, dict[str, Any]] = {}
        self.status: dict[str, MetricStatus] = {}
        self.failures: list[str] = []
        # Each is also set when the sampler has ended, so that nobody waits for it any longer.
        self.has_inventory, self.has_device, self.ended = (threading.Event() for _ in range(3))
        self._times: dict[str, array[float]] = {}
        self._values: dict[str, array[float]] = {}
        self._latest: dict[str, float] = {}

    def take(self, message: Message) -> None:
        """Take one message of :mod:`jobs.telemetry.sampler`."""
        match message["kind"]:
            case "samples":
                for at_s, values in message["samples"]:
                    self._add(at_s, values)
                self.status |= {name: MetricStatus(*status) for name, status in message["status"].items()}
            case "inventory":
                self.inventory = message
                self.has_inventory.set()
            case "device":
                self.device = message
                self.has_device.set()
            case "failed":
                self.failures.append(message["error"])
            case "host_end":
                self.rates |= message["rates"]
            case "gpu_end":
                self.rates |= message["rates"]
                self.gpu_end = message
            case "end":
                self.end = message
                self.close()

    def close(self) -> None:
        """The sampler ended: set all events."""
        for event in (self.ended, self.has_inventory, self.has_device):
            event.set()

    def _add(self, at_s: float, values: dict[str, float]) -> None:
        for name, value in values.items():
            if name not in self._times:
                # The values first: a reader finds a name by its times.
                self._values[name], self._times[name] = array("d"), array("d")
            self._values[name].append(value)
            self._times[name].append(at_s)
        self._latest |= values

    def series(self, name: str, offset_s: float = 0.0) -> Series:
        """The readings of one metric, ``offset_s`` added to their times; empty where there are none."""
        times, values = self._times.get(name, ()), self._values.get(name, ())
        # Sorted, since the driver's buffer gives samples that are older than the last polled reading.
        at_s = np.array(times, dtype=np.float64) + offset_s
        order = np.argsort(at_s, kind="stable")
        return Series(at_s[order], np.array(values, dtype=np.float64)[: len(at_s)][order])

    def latest(self) -> LiveReading:
        latest = self._latest.get
        return LiveReading(
            gpu_util_percent=latest("util_percent"),
            power_w=latest("power_w"),
            memory_used_bytes=latest("memory_used_bytes"),
        )
