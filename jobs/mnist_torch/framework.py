"""The torch adapter's :class:`jobs.adapter.Framework`: versions, devices, trainers."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from jobs.adapter import FrameworkDevice, FrameworkVersions
from jobs.adapter_common import check_gpu_code, check_precision
from jobs.errors import BadInput, NoUsableGpu, RanksNotConnected
from jobs.mnist_torch.device_checks import device_checks
from jobs.mnist_torch.peak_flops import matmul_flop_per_s
from jobs.mnist_torch.rank_trainer import RankTrainer
from jobs.mnist_torch.trainer import TorchTrainer

if TYPE_CHECKING:
    from jobs.adapter import DeviceChoice, DeviceKind, Execution, InputPath, RunSpec
    from jobs.datasets import ImageDataset
    from jobs.ranks.group import RankGroup
    from jobs.ranks.place import RankPlace

__all__ = (
    "create_trainer", "default_execution", "device_checks", "is_out_of_memory", "join_ranks", "matmul_flop_per_s",
    "select_device", "versions",
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
    if choice != "cpu":
        try:
            return _select_gpu()
        except NoUsableGpu:
            if choice == "gpu":
                raise
    return FrameworkDevice(kind="cpu", index=0, name="cpu")


def _select_gpu() -> FrameworkDevice:
    if not torch.cuda.is_available():
        raise NoUsableGpu(f"--device gpu: {_why_no_gpu()}")
    properties: Any = torch.cuda.get_device_properties(0)  # its type lacks the PCI fields
    note = check_gpu_code(
        f"torch {torch.__version__}",
        torch.version.cuda,
        torch.cuda.get_arch_list(),
        gpu=properties.name,
        capability=(properties.major, properties.minor),
    )
    return FrameworkDevice(
        kind="gpu",
        index=0,
        name=properties.name,
        uuid=f"GPU-{properties.uuid}",
        pci_bus_id=f"{properties.pci_domain_id:08x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0",
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_total_bytes=properties.total_memory,
        note=note,
    )


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install the torch extra or use the image mnist-torch"
    reason = ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        # Such as a driver that is too old, with its version; torch.cuda.is_available() says only yes or no.
        reason = f" ({str(error).strip().partition(chr(10))[0]})"
    return (
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU{reason}; check nvidia-smi on the "
        "host, start the container with --gpus all, or use --device cpu"
    )


def default_execution(device: DeviceKind, input_path: InputPath, *, in_shards: bool = False) -> Execution:
    return "graph" if device == "gpu" and input_path == "resident" and not in_shards else "eager"


def is_out_of_memory(error: Exception) -> bool:
    # On the host torch raises a plain RuntimeError, recognised by the allocator's name.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def join_ranks(place: RankPlace, *, timeout_s: float) -> None:
    if place.engine == "tf_config":
        raise BadInput("TF_CONFIG: it starts the ranks of mnist-tf; use torchrun, or --ranks without an engine")
    host, port = place.addresses[0]
    # With torchrun the variables also say whether its agent already listens there.
    url = "env://" if place.engine == "torchrun" else f"tcp://{host}:{port}"
    end_s = time.monotonic() + timeout_s
    try:
        store, _, _ = next(rendezvous(url, place.rank, place.size, timeout=timedelta(seconds=timeout_s)))
        store.set(f"joined/{place.rank}", "")
        for rank in range(place.size):
            store.wait([f"joined/{rank}"], timedelta(seconds=max(1.0, end_s - time.monotonic())))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size)
    except RuntimeError as error:
        refused = f"rank {place.rank} of {place.size} could not join the others at {host}:{port}"
        if "EADDRINUSE" in str(error):
            refused += ": the port is in use; end the process that listens there, or choose another port"
        else:
            refused += f" within {timeout_s:g} s: {str(error).strip().partition(chr(10))[0]}"
        raise RanksNotConnected(refused) from error


def create_trainer(spec: RunSpec, data: ImageDataset, group: RankGroup | None = None) -> TorchTrainer:
    if group is not None and (spec.execution != "eager" or spec.input != "resident"):
        raise BadInput(
            f"--reduction {spec.reduction}: the ranks of mnist-torch run eager steps on resident data; "
            "use --execution eager and --input resident"
        )
    if spec.execution == "graph" and spec.device == "cpu":
        raise BadInput("--execution graph: torch's graphs are CUDA graphs and need a GPU; use eager or compiled")
    if spec.execution == "graph" and spec.input == "streamed":
        raise BadInput("--execution graph: a CUDA graph gathers its batches on the device; use --input resident")
    if spec.execution == "compiled" and not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise BadInput("--execution compiled: torch.compile finds no C compiler; install one, or use eager or graph")
    check_precision(spec, torch.cuda.get_device_capability(0) if spec.device == "gpu" else None)
    return TorchTrainer(spec, data) if group is None else RankTrainer(spec, data, group)
