"""All that the sampler has said so far."""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.telemetry.aggregate import Series
from jobs.telemetry.sampler.messages import DeviceFacts, UsageBeforeRun
from jobs.telemetry.sampler.status import Status
from jobs.telemetry.types import LiveReading

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import Message


class SampleStore:
    """Takes the sampler's messages, from one thread; may be read from any other at any time."""

    def __init__(self) -> None:
        self.devices: list[dict[str, str]] = []
        self.driver_version: str | None = None
        self.nvml_error: str | None = None
        self.facts: DeviceFacts | None = None
        self.gpu_error: str | None = None
        self.baseline: UsageBeforeRun | None = None
        self.status: dict[str, Status] = {}
        self.xids: list[tuple[float, float, int]] = []
        """(after, at the latest at, XID)"""
        self.rates: dict[str, dict[str, Any]] = {}
        self.other_process_count: int | None = None
        self.failures: list[str] = []
        self.cpu_s: float | None = None
        self.startup_cpu_s: float | None = None
        self.gpu_ended = False
        self.greeted = threading.Event()
        self.attached = threading.Event()
        """Facts are there, or will never be."""
        self.ended = threading.Event()
        """Nothing more will come."""
        self._times: dict[str, array[float]] = {}
        self._values: dict[str, array[float]] = {}
        self._latest: dict[str, float] = {}

    def take(self, message: Message) -> None:
        """Take one message of :mod:`jobs.telemetry.sampler`."""
        kind = message["kind"]
        if kind == "rows":
            for at_s, values in message["rows"]:
                self._row(at_s, values)
        elif kind == "status":
            self.status |= {name: Status(**status) for name, status in message["status"].items()}
        elif kind == "xids":
            self.xids += [(message["since_s"], message["at_s"], xid) for xid in message["xids"]]
        elif kind == "hello":
            self.devices, self.driver_version = message["devices"], message["driver_version"]
            self.nvml_error = message["error"]
            self.greeted.set()
        elif kind == "facts":
            self.facts, self.gpu_error = DeviceFacts(**message["facts"]), message["error"]
            self.baseline = message["baseline"] and UsageBeforeRun(**message["baseline"])
            self.attached.set()
        elif kind == "failed":
            self.failures.append(message["error"])
        else:
            self._take_end(kind, message)

    def _take_end(self, kind: str, message: Message) -> None:
        if kind == "end":
            self.cpu_s, self.startup_cpu_s = message["cpu_s"], message["startup_cpu_s"]
            self.close()
            return
        self.rates |= message["rates"]
        if kind == "gpu_end":
            self.gpu_ended = True
            self.other_process_count = message["other_process_count"]

    def close(self) -> None:
        """Nobody will say anything more: wake up whoever waits."""
        self.ended.set()
        self.greeted.set()
        self.attached.set()

    def _row(self, at_s: float, values: dict[str, float]) -> None:
        for name, value in values.items():
            if name not in self._times:
                # The values first: a reader finds a name by its times.
                self._values[name], self._times[name] = array("d"), array("d")
            self._values[name].append(value)
            self._times[name].append(at_s)
        self._latest |= values

    def names(self) -> list[str]:
        return list(self._times)

    def series(self, name: str, offset_s: float = 0.0) -> Series:
        """The readings of one metric, ``offset_s`` added to their times; empty where there are none."""
        times, values = self._times.get(name, ()), self._values.get(name, ())
        # Sorted, since the driver's buffer may hand over what is older than what was read before.
        at_s = np.array(times, dtype=np.float64) + offset_s
        order = np.argsort(at_s, kind="stable")
        return Series(at_s[order], np.array(values, dtype=np.float64)[: len(at_s)][order])

    def latest(self) -> LiveReading:
        newest = self._latest
        return LiveReading(
            gpu_util_percent=newest.get("util_percent"),
            power_w=newest.get("power_w"),
            memory_used_bytes=newest.get("memory_used_bytes"),
        )
