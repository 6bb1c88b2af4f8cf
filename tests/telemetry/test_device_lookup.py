"""The framework's device is matched to NVML's by what identifies it, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Watched = Callable[..., dict[str, Any]]

NAMELESS = {"kind": "gpu", "index": 0, "name": "Fake"}


@pytest.mark.parametrize(
    ("device", "variables", "method"),
    [
        ({"uuid": "GPU-fake-1"}, {}, "uuid"),
        ({"pci_bus_id": "0000:01:00.0"}, {}, "pci_bus_id"),
        ({}, {"CUDA_VISIBLE_DEVICES": "GPU-fake-1"}, "visible_devices_uuid"),
        ({"index": 1}, {"CUDA_VISIBLE_DEVICES": "GPU-fake-0, GPU-fake-1"}, "visible_devices_uuid"),
        ({}, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "visible_devices_index"),
        ({"uuid": "GPU-unknown", "pci_bus_id": "0000:01:00.0"}, {}, "pci_bus_id"),
    ],
)
def test_find_two_gpus_reads_the_one_of_the_job(
    device: dict[str, str], variables: dict[str, str], method: str, watched: Watched
) -> None:
    seen = watched(gpus="2", device=NAMELESS | device, variables=variables, rows=5)
    assert seen["facts"]["mapping_method"] == method
    assert seen["facts"]["uuid"] == "GPU-fake-1"
    assert seen["gpu"]["power_w"]["mean"] == 101


def test_find_only_gpu_needs_no_identifier(watched: Watched) -> None:
    assert watched(device=NAMELESS, rows=5)["facts"]["mapping_method"] == "only_gpu"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # Without PCI_BUS_ID an index counts by speed, which NVML does not.
        {"CUDA_VISIBLE_DEVICES": "1"},
        # A prefix of both UUIDs.
        {"CUDA_VISIBLE_DEVICES": "GPU-fake"},
        {"CUDA_VISIBLE_DEVICES": "GPU-other"},
        # As a number of 32 bits it would be 0.
        {"CUDA_VISIBLE_DEVICES": "4294967296", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    ],
)
def test_find_two_gpus_without_identifier_reads_none(variables: dict[str, str], watched: Watched) -> None:
    seen = watched(gpus="2", device=NAMELESS, variables=variables, longest_s=0.1)
    assert seen["gpu"] is None
    assert "which of 2 GPUs" in seen["reasons"]["phases[].gpu"]
    # Only the choice of the GPU failed.
    assert seen["facts"]["driver_version"] == "999.12.3"
    assert seen["facts"]["cuda_driver_version"] == "13.2"
    assert seen["facts"]["null_reasons"].keys() == {"devices[]"}
    assert not seen["telemetry"]["available"]
    assert seen["validity"]["status"] == "unchecked"


@pytest.mark.parametrize(
    ("device", "variables", "mig", "method", "sm"),
    [
        ({"uuid": "MIG-fake-0-1"}, {}, "3", "uuid", 51),
        # A framework prints a MIG device's UUID as a GPU's.
        ({"uuid": "GPU-fake-0-1"}, {}, "3", "uuid", 51),
        ({"pci_bus_id": "0:0:0"}, {"CUDA_VISIBLE_DEVICES": "MIG-fake-0-2"}, "3", "pci_bus_id+mig_uuid", 52),
        ({"pci_bus_id": "0:0:0"}, {}, "1", "pci_bus_id+only_mig_device", 50),
        ({}, {"CUDA_VISIBLE_DEVICES": "MIG-fake-0-1"}, "2", "visible_devices_uuid", 51),
    ],
)
def test_find_mig_device_is_read_by_gpm(
    device: dict[str, str], variables: dict[str, str], mig: str, method: str, sm: float, watched: Watched
) -> None:
    seen = watched(gpus="2", mig=mig, device=NAMELESS | device, variables=variables, rows=8, until="sm_util_percent")
    facts = seen["facts"]
    assert facts["mapping_method"] == method
    assert facts["uuid"] == "GPU-fake-0"
    assert facts["mig_uuid"] == f"MIG-fake-0-{sm - 50}"
    gpu = seen["gpu"]
    assert gpu["sm_util_percent"]["mean"] == sm
    # What the whole GPU does is not the MIG device's.
    for name in ("util_percent", "power_w", "energy_j", "throttle_s"):
        assert gpu[name] is None
        assert "does not offer it" in seen["reasons"][f"phases[].gpu.{name}"]
    assert gpu["memory_used_peak_bytes"] is not None
    assert gpu["xid_errors"] == []
    # Whether the MIG device was throttled is not known.
    assert seen["validity"]["status"] == "unchecked"


@pytest.mark.parametrize(("instance_of_event", "expected"), [("1", [43]), ("0", []), ("-1", [43])])
def test_xid_on_mig_counts_own_and_whole_gpu_events(
    instance_of_event: str, expected: list[int], watched: Watched
) -> None:
    device = NAMELESS | {"uuid": "MIG-fake-0-1"}
    seen = watched(mig="2", xid="43", xid_instance=instance_of_event, device=device, rows=30, until="sm_util_percent")
    assert seen["gpu"]["xid_errors"] == expected


def test_find_forbidden_gpu_leaves_the_others(watched: Watched) -> None:
    seen = watched(gpus="2", forbidden="1", device=NAMELESS, busy="1", rows=5)
    assert seen["facts"]["mapping_method"] == "only_gpu"
    assert seen["facts"]["uuid"] == "GPU-fake-0"
    assert "gpu_busy_before_start" in seen["warnings"]


LOST = {"GPUS": "2", "LOST": "1", "BUSY": "1"}
BESIDE_A_LOST_GPU: dict[str, dict[str, Any]] = {
    "uuid": {"device": {"uuid": "GPU-fake-0"}},
    "pci_bus_id": {"device": {"pci_bus_id": "0000:00:00.0"}},
    "visible_devices_uuid": {"device": {}, "variables": {"CUDA_VISIBLE_DEVICES": "GPU-fake-0"}},
    "none": {"device": {}},
}


@pytest.fixture(scope="module")
def beside_a_lost_gpu(observed: Callable[..., dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    common = {"script": LOST, "untouched": True}
    return observed({name: common | case for name, case in BESIDE_A_LOST_GPU.items()})


@pytest.mark.parametrize("method", ["uuid", "pci_bus_id", "visible_devices_uuid"])
def test_find_lost_neighbour_leaves_the_others(method: str, beside_a_lost_gpu: dict[str, dict[str, Any]]) -> None:
    seen = beside_a_lost_gpu[method]
    assert seen["facts"]["mapping_method"] == method
    assert seen["facts"]["uuid"] == "GPU-fake-0"
    assert seen["gpu"]["power_w"]["mean"] == 100
    # What was in use before is known, too.
    assert "gpu_busy_before_start" in seen["warnings"]


def test_find_neighbour_whose_calls_never_return_leaves_the_others(watched: Watched) -> None:
    seen = watched(gpus="2", stuck="1", device=NAMELESS | {"uuid": "GPU-fake-0"}, rows=5, inventory_s=0)
    assert seen["facts"]["mapping_method"] == "uuid"
    assert seen["gpu"]["power_w"]["mean"] == 100
    # Only what was in use before the job is not known.
    assert seen["warnings"] == {}
    assert seen["validity"]["status"] == "ok"
    assert seen["stop_s"] < 2.5


def test_find_lost_neighbour_without_identifier_reads_none(beside_a_lost_gpu: dict[str, dict[str, Any]]) -> None:
    """The lost one may be the job's."""
    seen = beside_a_lost_gpu["none"]
    assert seen["gpu"] is None
    assert "which of 2 GPUs" in seen["reasons"]["phases[].gpu"]


def test_find_two_mig_devices_without_uuid_reads_none(watched: Watched) -> None:
    seen = watched(mig="2", device=NAMELESS | {"pci_bus_id": "0:0:0"}, longest_s=0.1)
    assert seen["gpu"] is None
    assert "set CUDA_VISIBLE_DEVICES to one MIG UUID" in seen["reasons"]["phases[].gpu"]
