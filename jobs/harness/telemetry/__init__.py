"""What the machine did during a run: the GPU through NVML, the host through the operating system.

The door is narrow on purpose: :func:`watch`, then :meth:`Watch.attach`, :meth:`Watch.latest`, :meth:`Watch.stop`.
"""

from jobs.harness.telemetry.facts import DeviceFacts, LiveReading, NvmlDevice, NvmlStatus, Observation
from jobs.harness.telemetry.watching import Watch, probe, watch

__all__ = ["DeviceFacts", "LiveReading", "NvmlDevice", "NvmlStatus", "Observation", "Watch", "probe", "watch"]
