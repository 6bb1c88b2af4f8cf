"""What the machine did during a run: the GPU through NVML, the host through the operating system.

The door is narrow on purpose: :func:`watch`, then :meth:`Watch.attach`, :meth:`Watch.mark`, :meth:`Watch.latest`,
:meth:`Watch.stop`. The readings are taken in another process, :mod:`jobs.harness.sampling`.
"""

from jobs.harness.telemetry.facts import DeviceFacts, LiveReading, NvmlDevice, NvmlStatus, Observation, Options
from jobs.harness.telemetry.watching import Watch, probe, watch

__all__ = [
    "DeviceFacts",
    "LiveReading",
    "NvmlDevice",
    "NvmlStatus",
    "Observation",
    "Options",
    "Watch",
    "probe",
    "watch",
]
