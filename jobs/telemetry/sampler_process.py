"""Runs the sampler, as a process or else as threads of this process, and stores its messages."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from array import array
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.telemetry.aggregate import Series
from jobs.telemetry.sampler.loop import MessageWriter, stop_loops
from jobs.telemetry.types import LiveReading, MetricStatus

if TYPE_CHECKING:
    from jobs.choices import TelemetryMode
    from jobs.telemetry.types import Message, Options

# The folder that this process imported the package from comes after the standard library in the path.
PROGRAM: Final = """
import sys
packages = [at for at, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages"))]
sys.path.insert(min(packages, default=len(sys.path)), sys.argv[1])
from jobs.telemetry.sampler.program import main
main(*sys.argv[2:])
"""


class SampleStore:
    """Stores the sampler's messages from one thread; may be read from any other at any time."""

    def __init__(self) -> None:
        self.inventory: Message = {"driver_version": None, "devices": [], "at_s": 0.0, "error": None}
        self.device: Message | None = None
        self.gpu_end: Message | None = None
        self.end: Message = {"cpu_s": None, "startup_cpu_s": None}
        self.rates: dict[str, dict[str, Any]] = {}
        self.status: dict[str, MetricStatus] = {}
        self.failures: list[str] = []
        # All are set when the sampler ends, so that no thread waits for it.
        self.has_inventory, self.has_device, self.ended = (threading.Event() for _ in range(3))
        self._times: dict[str, array[float]] = {}
        self._values: dict[str, array[float]] = {}
        self._latest: dict[str, float] = {}

    def handle(self, message: Message) -> None:
        """Store one message of :mod:`jobs.telemetry.sampler`."""
        match message["kind"]:
            case "samples":
                for at_s, values in message["samples"]:
                    self._add(at_s, values)
                self.status |= {name: MetricStatus(*status) for name, status in message["status"].items()}
            case "inventory":  # the devices, and what was in use on them at the time ``at_s``
                self.inventory = message
                self.has_inventory.set()
            case "device":  # the job's
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
                # The values first: :meth:`series` looks a name up by its times.
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


class Sampler:
    """A sampler that reads nothing, for ``--telemetry off``; base class of the other two."""

    mode: TelemetryMode = "off"

    def send(self, message: Message) -> None:
        """Send a message; never waits, and never fails."""

    def has_crashed(self) -> bool:
        """Whether a signal ended it, as after a crash inside NVML: then NVML must not be called in this process."""
        return False

    def stop(self, timeout_s: float) -> None:
        """Stop, and wait for its last messages, but no longer than ``timeout_s``."""


class ProcessSampler(Sampler):
    """A new process, not a fork, which would inherit CUDA's state and must not use it."""

    mode = "process"

    def __init__(self, options: Options, store: SampleStore) -> None:
        """Start it.

        Raises:
            OSError: no process can be started here.
        """
        if not sys.executable:
            raise OSError("the interpreter's own path is not known")
        arguments = (str(Path(__file__).parents[2]), json.dumps(asdict(options)), str(os.getpid()))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C on a terminal reaches the whole group; the sampler must survive it to send its last readings.
            process_group=0,
        )
        assert self._process.stdin is not None
        self._stdin: int | None = self._process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._store = store
        self._reader = threading.Thread(target=self._read, name="telemetry", daemon=True)
        try:
            self._reader.start()
        except RuntimeError as error:
            self._process.kill()
            self._close()
            raise OSError(str(error)) from error

    def has_crashed(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.2) < 0
        return False

    def send(self, message: Message) -> None:
        # An error means that the sampler has ended or hangs.
        if self._stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self._stdin, json.dumps(message).encode() + b"\n")

    def stop(self, timeout_s: float) -> None:
        self.send({"kind": "stop"})
        self._store.ended.wait(timeout_s)
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A killed process may stay in the driver for long, so the wait is short.
            self._process.wait(0.2)
        self._reader.join(0.2)
        if not self._reader.is_alive():
            self._close()

    def _close(self) -> None:
        # The system may reuse the number of a closed descriptor.
        self._stdin = None
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                # A line that is not JSON was printed by a library, or cut short when the process was killed.
                with contextlib.suppress(ValueError):
                    self._store.handle(json.loads(line))
        except (OSError, KeyError, TypeError) as error:
            self._store.failures.append(f"the sampler's messages ended: {error!r}")
        finally:
            self._store.close()


class ThreadSampler(Sampler):
    """The same loops as threads. A thread that NVML blocks keeps running after :meth:`stop`."""

    mode = "thread"

    def __init__(self, options: Options, store: SampleStore) -> None:
        """Start them.

        Raises:
            RuntimeError: no thread can be started here.
        """
        # The job's own process loads NVML's binding only if it must read by itself.
        from jobs.telemetry.sampler.gpu_loop import GpuLoop  # noqa: PLC0415
        from jobs.telemetry.sampler.host import HostLoop  # noqa: PLC0415

        writer = MessageWriter(store.handle)
        self._store = store
        self._loops = [HostLoop(options, os.getpid(), writer), GpuLoop(options, os.getpid(), writer)]
        for loop in self._loops:
            loop.start()

    def send(self, message: Message) -> None:
        for loop in self._loops:
            loop.inbox.put(message)

    def stop(self, timeout_s: float) -> None:
        cpu_s = sum(loop.cpu_s for loop in self._loops) if stop_loops(self._loops, timeout_s) else None
        self._store.handle({"kind": "end", "cpu_s": cpu_s, "startup_cpu_s": 0.0})
