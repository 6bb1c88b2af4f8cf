"""The values that options may have: one list for the command line, the adapters and the report."""

from __future__ import annotations

from typing import Literal

FrameworkName = Literal["tensorflow", "torch"]
TrainingProtocol = Literal["matched", "published"]
Precision = Literal["fp32", "tf32", "bf16", "fp64"]
Execution = Literal["eager", "graph", "compiled"]
InputPath = Literal["resident", "streamed"]
DeviceChoice = Literal["auto", "gpu", "cpu"]
DeviceKind = Literal["gpu", "cpu"]
