"""What torch offers to a run: versions, devices, trainers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch

from jobs.adapter import FrameworkDevice, FrameworkVersions
from jobs.errors import BadInput, NoUsableGpu
from jobs.mnist_torch.trainer import TorchTrainer

if TYPE_CHECKING:
    from jobs.adapter import DeviceChoice, DeviceKind, Execution, InputPath, RunSpec
    from jobs.datasets import ImageDataset

AMPERE = (8, 0)
"""The first compute capability with TF32 and bfloat16 matrix units."""


def versions() -> FrameworkVersions:
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return FrameworkVersions(
        name="torch",
        version=torch.__version__,
        cuda_runtime=torch.version.cuda,
        cudnn=None if cudnn is None else _cudnn_text(cudnn),
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
    properties = torch.cuda.get_device_properties(0)
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
    # On the host torch raises a plain RuntimeError, told by its allocator's name.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def create_trainer(spec: RunSpec, data: ImageDataset) -> TorchTrainer:
    if spec.execution == "graph" and spec.device == "cpu":
        raise BadInput("--execution graph: torch's graphs are CUDA graphs and need a GPU; use eager or compiled")
    if spec.execution == "graph" and spec.input == "streamed":
        raise BadInput("--execution graph: a CUDA graph gathers its batches on the device; use --input resident")
    if spec.execution == "compiled" and not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise BadInput("--execution compiled: torch.compile needs a C compiler and finds none; use eager or graph")
    if spec.precision == "tf32" and spec.device == "cpu":
        raise BadInput("--precision tf32: only NVIDIA GPUs have it; use fp32 or bf16")
    if spec.precision in {"tf32", "bf16"} and spec.device == "gpu" and torch.cuda.get_device_capability(0) < AMPERE:
        raise BadInput(f"--precision {spec.precision}: needs compute capability 8.0 or later; use fp32")
    return TorchTrainer(spec, data)
