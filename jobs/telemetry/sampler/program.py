"""The sampler as a separate process: commands on standard input, readings on standard output, as lines of JSON.

It ends on a ``stop`` message, when standard input ends, or when the training process ends. It waits for its loops for a
limited time, so that a hanging NVML call does not block the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Final

from jobs.telemetry.sampler.gpu_loop import GpuLoop
from jobs.telemetry.sampler.host import HostLoop
from jobs.telemetry.sampler.loop import MessageWriter, stop_loops, write_line
from jobs.telemetry.types import Options

STOP_TIMEOUT_S: Final = 1.0
"""More than any reading takes, less than the training process waits."""

PARENT_INTERVAL_S: Final = 1.0
"""How often the parent process is looked at."""


def main(options_text: str, process_id: str) -> None:
    """Sample the process ``process_id`` until a ``stop`` message, then exit."""
    # A signal that stops the job may reach its whole process group; the last readings must still be sent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(int(process_id),), daemon=True).start()
    startup_cpu_s = time.process_time()
    options, writer = Options(**json.loads(options_text)), MessageWriter(write_line)
    loops = [HostLoop(options, int(process_id), writer), GpuLoop(options, int(process_id), writer)]
    for loop in loops:
        loop.start()
    for message in map(json.loads, sys.stdin):
        if message["kind"] == "stop":
            break
        for loop in loops:
            loop.inbox.put(message)
    stop_loops(loops, STOP_TIMEOUT_S)
    writer.send("end", startup_cpu_s=startup_cpu_s, cpu_s=time.process_time() - startup_cpu_s)
    # Not sys.exit, which would wait for a thread that hangs in NVML.
    os._exit(0)


def _end_with_parent(process_id: int) -> None:
    """End this process soon after its parent ``process_id``.

    Standard input may stay open then: a process that the parent forked has a copy of the pipe. PR_SET_PDEATHSIG is not
    used, since its signal comes when the thread that started this process ends (prctl(2)), not the process.
    """
    while os.getppid() == process_id:
        time.sleep(PARENT_INTERVAL_S)
    os._exit(0)
