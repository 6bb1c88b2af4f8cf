"""Starts the sampler: as a process of its own, or as threads of this one where no process can be started."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobs.telemetry.sampler.gpu_loop import GpuLoop
from jobs.telemetry.sampler.host_loop import HostLoop
from jobs.telemetry.sampler.message_writer import MessageWriter, run_reporting_errors

if TYPE_CHECKING:
    from jobs.telemetry.sample_store import SampleStore
    from jobs.telemetry.sampler.message_writer import Message
    from jobs.telemetry.sampler.messages import Settings
    from jobs.telemetry.types import Mode

# The package is found where this process found it, behind the standard library, whatever lies in the current folder.
PROGRAM: Final = """
import sys
own, settings = sys.argv[1:]
places = [at for at, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages"))]
sys.path.insert(min(places, default=len(sys.path)), own)
from jobs.telemetry.sampler.__main__ import run_to_the_end
run_to_the_end(settings)
"""


class Sampler(Protocol):
    """A sampler that runs."""

    mode: Mode

    @property
    def crashed(self) -> bool:
        """Whether a signal ended it, as after a fault inside NVML: that must not be tried in this process too."""
        ...

    def send(self, message: Message) -> None:
        """Pass a message on; never waits, and never fails."""
        ...

    def stop(self, timeout_s: float) -> None:
        """Stop, and wait for what is still to be said, but no longer than ``timeout_s``."""
        ...


class ProcessSampler:
    """A process started anew, not forked: a fork would inherit CUDA's state, which must not be touched there."""

    mode: Mode = "process"

    def __init__(self, settings: Settings, record: SampleStore) -> None:
        """Start it.

        Raises:
            OSError: no process can be started here.
        """
        if not sys.executable:
            raise OSError("the interpreter's own path is not known")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(Path(__file__).parents[3]), json.dumps(asdict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C on a terminal reaches the whole group; the sampler must outlive it to tell of the run.
            process_group=0,
        )
        assert self._process.stdin is not None
        self._orders: int | None = self._process.stdin.fileno()
        os.set_blocking(self._orders, False)
        self._reader = threading.Thread(target=self._read, args=(record,), name="telemetry", daemon=True)
        self._record = record
        try:
            self._reader.start()
        except RuntimeError as error:
            self._process.kill()
            self._close()
            raise OSError(str(error)) from error

    @property
    def crashed(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.2) < 0
        return False

    def send(self, message: Message) -> None:
        if self._orders is None:
            return
        # A sampler that has died or hangs reads nothing; what it is told then is of no use to it.
        with contextlib.suppress(OSError):
            os.write(self._orders, json.dumps(message).encode() + b"\n")

    def stop(self, timeout_s: float) -> None:
        self.send({"kind": "stop"})
        self._record.ended.wait(timeout_s)
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Even a killed process stays while the driver holds on to it; it is not waited for.
            self._process.wait(0.2)
        self._reader.join(0.2)
        if not self._reader.is_alive():
            self._close()

    def _close(self) -> None:
        # The number of a closed file may be another's soon.
        self._orders = None
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read(self, record: SampleStore) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                # Not ours: what some other module printed, or a last line cut short when the process was killed.
                with contextlib.suppress(ValueError):
                    record.take(json.loads(line))
        except (OSError, KeyError, TypeError) as error:
            record.failures.append(f"the sampler's messages broke off: {error!r}")
        finally:
            record.close()


class ThreadSampler:
    """The same loops as threads. They end by themselves unless NVML holds one; then they are left behind."""

    mode: Mode = "thread"
    crashed = False

    def __init__(self, settings: Settings, record: SampleStore) -> None:
        """Start them.

        Raises:
            RuntimeError: no thread can be started here.
        """
        outbox = MessageWriter(record.take)
        self._record = record
        self._loops: list[HostLoop | GpuLoop] = [HostLoop(settings, outbox), GpuLoop(settings, outbox)]
        self._cpu_s: list[float] = []
        self._threads = [
            threading.Thread(target=self._run, args=(loop, outbox), name="telemetry", daemon=True)
            for loop in self._loops
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: Message) -> None:
        for loop in self._loops:
            loop.inbox.put(message)

    def stop(self, timeout_s: float) -> None:
        self.send({"kind": "stop"})
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        complete = len(self._cpu_s) == len(self._threads)
        end: dict[str, Any] = {"cpu_s": sum(self._cpu_s) if complete else None, "startup_cpu_s": 0.0}
        self._record.take({"kind": "end", **end})

    def _run(self, loop: HostLoop | GpuLoop, outbox: MessageWriter) -> None:
        run_reporting_errors(loop.run, outbox)
        self._cpu_s.append(time.thread_time())


class NoSampler:
    """Nothing is read."""

    mode: Mode = "off"
    crashed = False

    def __init__(self, record: SampleStore) -> None:
        record.close()

    def send(self, message: Message) -> None:
        pass

    def stop(self, timeout_s: float) -> None:
        pass
