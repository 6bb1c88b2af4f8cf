"""Asks CUDA's driver library. No context is created, so no memory of any GPU is used."""

from __future__ import annotations

import ctypes
from typing import Final

LIBRARY: Final = "libcuda.so.1"
ADDRESS_BYTES: Final = 32
"""An address such as ``0000:65:00.0`` has 13 with the closing zero."""


def pci_bus_id(index: int) -> str | None:
    """The PCI bus id of CUDA's device ``index``, which counts as frameworks do; ``None`` if the driver has no answer.

    The calls are ``cuInit``, ``cuDeviceGet`` and ``cuDeviceGetPCIBusId`` of the CUDA Driver API. They return 0 on
    success, and follow ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER``.
    """
    try:
        driver = ctypes.CDLL(LIBRARY)
        device, address = ctypes.c_int(), ctypes.create_string_buffer(ADDRESS_BYTES)
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), index)
            or driver.cuDeviceGetPCIBusId(address, ADDRESS_BYTES, device)
        )
    except (OSError, AttributeError):
        return None
    return None if failed else address.value.decode("ascii", "replace")


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA version, (major, minor), that the driver supports; ``None`` if the driver has no answer.

    ``cuDriverGetVersion`` of the CUDA Driver API, which returns 1000 * major + 10 * minor and needs no ``cuInit``.
    """
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL(LIBRARY).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)
