"""What the machine did during a run: the GPU through NVML, the host through the operating system.

Imports nothing, so that the sampler's process stays small: begin at :func:`jobs.telemetry.monitor.watch`.
"""
