"""The sampler as a process of its own: orders come in on standard input, readings leave on standard output.

Both are lines of JSON. It ends when told to, or when standard input ends because the training process is gone. It
waits for its loops for a bounded time, so that an NVML call that hangs cannot keep it.
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

END_S: Final = 1.0
"""Longer than any reading takes, shorter than the training process waits."""


def main(options_text: str, process_id: str) -> None:
    """Sample the process ``process_id`` until told to stop, and exit at once."""
    # A signal that stops the job may reach its whole process group; its last readings are still wanted.
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
    stop_loops(loops, END_S)
    writer.send("end", startup_cpu_s=startup_cpu_s, cpu_s=time.process_time() - startup_cpu_s)
    # A thread that hangs in NVML must not hold up the end.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
