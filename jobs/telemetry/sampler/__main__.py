"""The sampler as a separate process: commands on standard input, readings on standard output, as lines of JSON.

It ends on a ``stop`` message, or when standard input ends because the training process has ended. It waits for its
loops for a limited time, so that a hanging NVML call does not block the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Final

from jobs.telemetry.sampler.gpu_loop import GpuLoop
from jobs.telemetry.sampler.host import HostLoop
from jobs.telemetry.sampler.loop import MessageWriter, stop_loops, write_line
from jobs.telemetry.types import Options

STOP_TIMEOUT_S: Final = 1.0
"""More than any reading takes, less than the training process waits."""


def main(options_text: str, process_id: str) -> None:
    """Sample the process ``process_id`` until a ``stop`` message, then exit."""
    # A signal that stops the job may reach its whole process group; the last readings must still be sent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    startup_cpu_s = time.process_time()
    options, writer = Options(**json.loads(options_text)), MessageWriter(write_line)
    loops = [HostLoop(options, int(process_id), writer), GpuLoop(options, writer)]
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


if __name__ == "__main__":
    main(*sys.argv[1:])
