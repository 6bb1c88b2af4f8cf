"""A compute device as a framework sees it, in terms that NVML can be asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["gpu", "cpu"]


@dataclass(frozen=True, kw_only=True)
class FrameworkDevice:
    """The device that an adapter selected.

    ``uuid`` and ``pci_bus_id`` identify a GPU outside the framework, whose ``index`` counts visible devices
    only. Either may be ``None`` where the framework does not tell; both are ``None`` for a CPU.
    """

    kind: DeviceKind
    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    compute_capability: str | None = None
    memory_total_bytes: int | None = None
