"""Every return code of NVML at every call gives a figure or a reason, never an exception or a wrong number."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jobs.telemetry.metrics import GPU_METRICS, POLLED_THROTTLING
from tests.support.fake_nvml import SOURCE

if TYPE_CHECKING:
    from pathlib import Path

FUNCTIONS = sorted(set(re.findall(r"^ret_t (nvml\w+)\(", SOURCE.read_text(), re.MULTILINE)))

# One process for all: the library reads the environment at every call, and os.environ writes it through.
PROGRAM = """
import json, os, sys, threading
import pynvml
from jobs.telemetry.sampler.gpu_loop import GpuLoop
from jobs.telemetry.sampler.loop import MessageWriter
from jobs.telemetry.types import Options

codes = sorted({value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")} | {77, -5})
wanted = {"uuid": "GPU-fake-0", "pci_bus_id": "0:0:0", "index": 0, "visible_devices": None, "device_order": None}
options = Options(fast_s=1e-6, gpm_s=1e-6, slow_s=1e-6)

ATTACH = {"kind": "attach", "query": wanted}

def from_the_start(sent):
    loop = GpuLoop(options, 1, MessageWriter(sent.append))
    for order in (ATTACH, {"kind": "mark"}, {"kind": "stop"}):
        loop.inbox.put(order)
    loop.run()
    for thread in [thread for thread in threading.enumerate() if thread.name == "inventory"]:
        thread.join()

def in_mid_run(sent, rule):
    # The call fails after the second of four rounds of readings.
    os.environ["FAKE_NVML_FAIL"] = ""
    loop = GpuLoop(options, 1, MessageWriter(sent.append))
    pynvml.nvmlInit()
    loop.attach(wanted, None)
    for turn in range(4):
        loop.gpu.read_due(loop._rates)
        assert loop.gpu._counters_read_s > 0  # so that counters are read in every round
        loop.gpu._counters_read_s = 0.0
        os.environ["FAKE_NVML_FAIL"] = rule if turn else ""
    loop.finish()
    os.environ["FAKE_NVML_FAIL"] = ""
    pynvml.nvmlShutdown()

for function in json.loads(sys.argv[1]):
    for code in codes:
        rule = os.environ["FAKE_NVML_FAIL"] = f"{function}:{code}:0"
        early, late = [], []
        from_the_start(early)
        in_mid_run(late, rule)
        print(json.dumps({"function": function, "code": code, "early": early, "late": late}))
"""

EXPECTED: dict[str, set[float]] = {
    "util_percent": {0, 40},
    "memory_util_percent": {0, 10},
    "power_w": {100},
    "sm_clock_hz": {1.5e9},
    "memory_clock_hz": {2.6e9},
    "memory_used_bytes": {0, 2**30},
    "memory_reserved_bytes": {2**28},
    "temperature_c": {50},
    "sm_util_percent": {12.5},
    "graphics_util_percent": {90},
    "sm_occupancy_percent": {6.25},
    "tensor_util_percent": {2},
    "hmma_util_percent": {1},
    "fp32_util_percent": {3},
    "dram_bandwidth_util_percent": {5},
    "pcie_tx_bytes_per_s": {8 * 2**20},
    "pcie_rx_bytes_per_s": {4 * 2**20},
    **{metric.name: {1000 * 1e-9} for metric in GPU_METRICS if metric.name.startswith("throttle_s.")},
    **{key: {0} for key in ("throttle_s.thermal", "throttle_s.sw_thermal")},
    **{metric.name: {0} for metric in POLLED_THROTTLING},
    "ecc_corrected_errors": {0},
    "ecc_uncorrected_errors": {0},
    "row_remaps_corrected": {0},
    "row_remaps_uncorrected": {0},
    "util_percent.buffered": {0, 40},
    "memory_util_percent.buffered": {0, 10},
}
"""All values that the stand-in gives; counters are checked to grow."""

COUNTERS = ("energy_j", "pcie_tx_bytes", "pcie_rx_bytes")


@pytest.fixture(scope="module")
def sent(fake_nvml: Path) -> list[dict[str, Any]]:
    environment = os.environ | {"LD_LIBRARY_PATH": str(fake_nvml), "FAKE_NVML_SAMPLES": "epoch"}
    command = [sys.executable, "-c", PROGRAM, json.dumps(FUNCTIONS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _messages(case: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [message for message in case["early"] + case["late"] if message["kind"] == kind]


def test_cases_cover_every_code_at_every_call(sent: list[dict[str, Any]]) -> None:
    assert {case["function"] for case in sent} == set(FUNCTIONS)
    assert len({case["code"] for case in sent}) > 25
    assert len(sent) == len(FUNCTIONS) * len({case["code"] for case in sent})


def test_messages_any_error_code_come_in_order(sent: list[dict[str, Any]]) -> None:
    for case in sent:
        kinds = [message["kind"] for message in case["early"] if message["kind"] != "samples"]
        # Another thread sends it.
        kinds.remove("inventory")
        assert kinds == ["device", "gpu_end"], (case["function"], case["code"], kinds)


def test_values_any_error_code_are_right(sent: list[dict[str, Any]]) -> None:
    for case in sent:
        for part in ("early", "late"):
            last = dict.fromkeys(COUNTERS, 0.0)
            for message in case[part]:
                for _, values in message.get("samples", []):
                    for name, value in values.items():
                        if name in COUNTERS:
                            assert value >= last[name]
                            last[name] = value
                        else:
                            assert value in EXPECTED[name], (case["function"], case["code"], name, value)


def test_metrics_any_error_code_have_a_value_or_an_error(sent: list[dict[str, Any]]) -> None:
    """A device that was found is read: each metric has given a value, or its status says why not."""
    names = {"util_percent", "power_w", "sm_clock_hz", "memory_used_bytes", "temperature_c", "energy_j"}
    for case in sent:
        (device,) = [message for message in case["early"] if message["kind"] == "device"]
        if device["error"] is not None:
            assert device["error"].strip(), (case["function"], case["code"])
            continue
        rows = [values for message in case["early"] for _, values in message.get("samples", [])]
        read = {name for values in rows for name in values}
        errors = {
            name for message in case["early"] for name, (_, _, error) in message.get("status", {}).items() if error
        }
        assert names <= read | errors, (case["function"], case["code"], names - read - errors)


def test_metrics_one_failed_call_leaves_the_others(sent: list[dict[str, Any]]) -> None:
    """Temperature, read last, is there whatever else failed after the device was found."""
    for case in sent:
        if "Temperature" in case["function"] or not any("samples" in message for message in case["late"]):
            continue
        rows = [values for message in case["late"] for _, values in message.get("samples", [])]
        assert any("temperature_c" in values for values in rows), (case["function"], case["code"])
