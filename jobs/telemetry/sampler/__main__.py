"""The sampler as a process of its own: orders come in on standard input, readings leave on standard output.

Both are lines of JSON. It ends when it is told to, or when the training process is gone and standard input ends;
a call of NVML's that hangs cannot keep it, since it waits for its loops for a bounded time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from jobs.telemetry.sampler.gpu_loop import GpuLoop
from jobs.telemetry.sampler.host_loop import HostLoop
from jobs.telemetry.sampler.message_writer import MessageWriter, run_reporting_errors
from jobs.telemetry.sampler.messages import Settings

if TYPE_CHECKING:
    from jobs.telemetry.sampler.message_writer import Message

END_S: Final = 1.0
"""Longer than any reading takes, shorter than the training process waits."""


def main(settings_text: str) -> None:
    # What stops the job may reach the whole group; its last readings are still wanted. Standard input's end is heard.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings = Settings(**json.loads(settings_text))
    begun_s = time.process_time()
    outbox = MessageWriter(_print)
    host, gpu = HostLoop(settings, outbox), GpuLoop(settings, outbox)
    threads = [
        threading.Thread(target=run_reporting_errors, args=(loop.run, outbox), daemon=True) for loop in (host, gpu)
    ]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        message: Message = json.loads(line)
        host.inbox.put(message)
        gpu.inbox.put(message)
        if message["kind"] == "stop":
            break
    deadline_s = time.monotonic() + END_S
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    outbox.say("end", startup_cpu_s=begun_s, cpu_s=time.process_time() - begun_s)


def _print(message: Message) -> None:
    try:
        sys.stdout.write(json.dumps(message, separators=(",", ":"), allow_nan=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody listens any more.
        os._exit(0)


def run_to_the_end(settings_text: str) -> None:
    """Sample until told to stop, then leave at once: a thread that hangs in NVML must not hold up the end."""
    main(settings_text)
    os._exit(0)


if __name__ == "__main__":
    run_to_the_end(sys.argv[1])
