"""What only the device can show of this adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.adapter import DeviceCheck, DeviceKind
    from jobs.datasets import ImageDataset


def device_checks(device: DeviceKind, data: ImageDataset) -> tuple[DeviceCheck, ...]:  # noqa: ARG001 - none yet
    """See :meth:`jobs.adapter.Framework.device_checks`."""
    return ()
