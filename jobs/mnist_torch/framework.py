"""The torch adapter's :class:`jobs.adapter.Framework`: versions, devices, trainers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import torch

from jobs.adapter import FrameworkDevice, FrameworkVersions
from jobs.adapter_common import check_precision
from jobs.errors import BadInput, NoUsableGpu
from jobs.mnist_torch.device_checks import device_checks
from jobs.mnist_torch.peak_flops import matmul_flop_per_s
from jobs.mnist_torch.trainer import TorchTrainer

if TYPE_CHECKING:
    from jobs.adapter import DeviceChoice, DeviceKind, Execution, InputPath, RunSpec
    from jobs.datasets import ImageDataset

__all__ = (
    "create_trainer", "default_execution", "device_checks", "is_out_of_memory", "matmul_flop_per_s", "select_device",
    "versions",
)  # fmt: skip
"""The members of :class:`jobs.adapter.Framework`."""


def versions() -> FrameworkVersions:
    cudnn: Any = torch.backends.cudnn  # its functions have no types
    return FrameworkVersions(
        name="torch",
        version=torch.__version__,
        cuda_runtime=torch.version.cuda,
        cudnn=_cudnn_text(cudnn.version()) if cudnn.is_available() else None,
    )


def _cudnn_text(number: int) -> str:
    # cuDNN 9 counts major * 10000 + minor * 100 + patch.
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def select_device(choice: DeviceChoice) -> FrameworkDevice:
    usable = choice != "cpu" and torch.cuda.is_available()
    if choice == "gpu" and not usable:
        raise NoUsableGpu(f"--device gpu: {_why_no_gpu()}")
    if not usable:
        return FrameworkDevice(kind="cpu", index=0, name="cpu")
    properties: Any = torch.cuda.get_device_properties(0)  # its type lacks the PCI fields
    return FrameworkDevice(
        kind="gpu",
        index=0,
        name=properties.name,
        uuid=f"GPU-{properties.uuid}",
        pci_bus_id=f"{properties.pci_domain_id:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0",
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_total_bytes=properties.total_memory,
    )


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install the torch extra or use the image mnist-torch"
    return (
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU; check nvidia-smi on the host, "
        "start the container with --gpus all, or use --device cpu"
    )


def default_execution(device: DeviceKind, input_path: InputPath) -> Execution:
    return "graph" if device == "gpu" and input_path == "resident" else "eager"


def is_out_of_memory(error: Exception) -> bool:
    # On the host torch raises a plain RuntimeError, recognised by the allocator's name.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def create_trainer(spec: RunSpec, data: ImageDataset) -> TorchTrainer:
    if spec.execution == "graph" and spec.device == "cpu":
        raise BadInput("--execution graph: torch's graphs are CUDA graphs and need a GPU; use eager or compiled")
    if spec.execution == "graph" and spec.input == "streamed":
        raise BadInput("--execution graph: a CUDA graph gathers its batches on the device; use --input resident")
    if spec.execution == "compiled" and not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise BadInput("--execution compiled: torch.compile finds no C compiler; install one, or use eager or graph")
    check_precision(spec, torch.cuda.get_device_capability(0) if spec.device == "gpu" else None)
    return TorchTrainer(spec, data)
