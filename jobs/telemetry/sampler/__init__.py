"""The sampler's process: it reads the GPU through NVML and the host through the operating system.

Nothing here imports NumPy, pydantic or a framework, so that the process starts quickly and stays small.
"""
