"""The allowed values of options, shared by the command line, the adapters and the report."""

from __future__ import annotations

from typing import Final, Literal, get_args

FrameworkName = Literal["tensorflow", "torch"]
"""The only list of the frameworks' names; each has an adapter."""
FRAMEWORKS: Final[tuple[FrameworkName, ...]] = get_args(FrameworkName)

TrainingProtocol = Literal["matched", "published"]
Precision = Literal["fp32", "tf32", "bf16", "fp64"]
Execution = Literal["eager", "graph", "compiled"]
InputPath = Literal["resident", "streamed"]
DeviceChoice = Literal["auto", "gpu", "cpu"]
DeviceKind = Literal["gpu", "cpu"]
Reduction = Literal["exact", "fast"]
"""How ranks add their gradients: shard by shard in a fixed order, or in one sum whose order the engine chooses."""
Scaling = Literal["strong", "weak"]
"""What stays the same with more ranks: the step's batch, or each rank's part of it."""
SHARDS: Final = 8
"""Parts of every global batch that ranks share, and so the most ranks. Under ``exact`` their number divides it."""
TelemetryMode = Literal["process", "thread", "off"]
