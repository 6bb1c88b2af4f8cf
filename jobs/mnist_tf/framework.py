"""The TensorFlow adapter's :class:`jobs.adapter.Framework`: versions, devices, trainers."""

from __future__ import annotations

import contextlib
import os
from importlib import metadata
from typing import TYPE_CHECKING, Final

import tensorflow as tf

from jobs.adapter import FrameworkDevice, FrameworkVersions
from jobs.adapter_common import check_gpu_code, check_precision
from jobs.errors import BadInput, NoUsableGpu
from jobs.io.cpus import usable_cpus
from jobs.io.cuda_driver import pci_bus_id
from jobs.io.whole_number import whole_number
from jobs.mnist_tf.collectives import connect, join, ranks_here
from jobs.mnist_tf.device_checks import device_checks
from jobs.mnist_tf.native_logs import suppress_native_stderr
from jobs.mnist_tf.peak_flops import matmul_flop_per_s
from jobs.mnist_tf.rank_trainer import RankTrainer
from jobs.mnist_tf.trainer import TensorFlowTrainer

if TYPE_CHECKING:
    from jobs.adapter import DeviceChoice, DeviceKind, Execution, InputPath, RunSpec
    from jobs.datasets import ImageDataset
    from jobs.ranks.group import RankGroup
    from jobs.ranks.place import RankPlace

# Each trainer makes functions of its own, which TensorFlow reports as retracing from the fifth trial on.
tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())

__all__ = (
    "create_trainer", "default_execution", "device_checks", "is_out_of_memory", "join_ranks", "matmul_flop_per_s",
    "select_device", "versions",
)  # fmt: skip
"""The members of :class:`jobs.adapter.Framework`."""

MAX_THREADS: Final = 4096
"""More than the CPUs of any machine. TensorFlow's process crashes where it cannot start all of a pool's threads."""


def versions() -> FrameworkVersions:
    build = tf.sysconfig.get_build_info()
    return FrameworkVersions(
        name="tensorflow",
        version=tf.__version__,
        cuda_runtime=build.get("cuda_version"),
        cudnn=build.get("cudnn_version"),
    )


def select_device(choice: DeviceChoice) -> FrameworkDevice:
    # Before the first use of a device, which makes the thread pools.
    _set_threads()
    if choice != "cpu":
        try:
            return _select_gpu(choice)
        except NoUsableGpu:
            if choice == "gpu":
                raise
    # Hidden, so that TensorFlow places nothing on a GPU. It looks for one here, if it has not before.
    with suppress_native_stderr():
        tf.config.set_visible_devices([], "GPU")
    return FrameworkDevice(kind="cpu", index=0, name="cpu")


def _select_gpu(choice: DeviceChoice) -> FrameworkDevice:
    # CUDA's own messages are useful only if a GPU was requested.
    with contextlib.nullcontext() if choice == "gpu" else suppress_native_stderr():
        gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise NoUsableGpu(f"--device gpu: {_why_no_gpu()}")
    details = tf.config.experimental.get_device_details(gpus[0])
    name, capability = details.get("device_name", "unknown GPU"), details.get("compute_capability")
    note = None if capability is None else _check_gpu_code(name, capability)
    tf.config.set_visible_devices(gpus[:1], "GPU")
    # Otherwise an operation that is placed on the GPU and has no kernel there runs on the CPU without a word.
    tf.config.set_soft_device_placement(False)
    return FrameworkDevice(
        kind="gpu",
        index=0,
        name=name,
        # TensorFlow names physical devices by CUDA's index. Its own list with PCI bus ids opens every GPU.
        pci_bus_id=pci_bus_id(int(gpus[0].name.rpartition(":")[2])),
        compute_capability=".".join(map(str, capability)) if capability else None,
        note=note,
    )


def _check_gpu_code(gpu: str, capability: tuple[int, int]) -> str | None:
    # Builds without CUDA lack the keys.
    build = tf.sysconfig.get_build_info()
    names = build.get("cuda_compute_capabilities", [])
    # TensorFlow's build means PTX and a binary by compute_90, and a binary alone by sm_90 (its configure.py).
    binaries = [name.replace("compute_", "sm_") for name in names]
    return check_gpu_code(
        f"TensorFlow {tf.__version__}",
        build.get("cuda_version"),
        sorted({*names, *binaries}),
        gpu=gpu,
        capability=capability,
        cudnn=_cudnn_package(),
    )


def _cudnn_package() -> str | None:
    """The version of the package that TensorFlow's CUDA extra brings; ``None`` where cuDNN comes from elsewhere."""
    try:
        return metadata.version("nvidia-cudnn-cu12")
    except metadata.PackageNotFoundError:
        return None


def _set_threads(*, share: int | None = None, intra: int | None = None) -> None:
    """Set the sizes of both thread pools: those of TensorFlow's variables, or the CPUs that this process may use.

    ``share`` replaces the number of CPUs; ``intra`` is the size of the pool that divides an operation.

    TensorFlow's own default ignores a CPU quota and cannot be read back. Pools that exist keep their sizes, so that
    what is read back is in force.
    """
    threading, default = tf.config.threading, share or usable_cpus()
    # RuntimeError: the pools exist and have other sizes.
    with contextlib.suppress(RuntimeError):
        threading.set_intra_op_parallelism_threads(intra or _number("TF_NUM_INTRAOP_THREADS") or default)
        threading.set_inter_op_parallelism_threads(_number("TF_NUM_INTEROP_THREADS") or default)


def _number(variable: str) -> int | None:
    """The variable's number of threads; ``None`` where it is unset or no number up to :data:`MAX_THREADS`."""
    number = whole_number(os.environ.get(variable, ""))
    return None if number is None or number > MAX_THREADS else number


def _why_no_gpu() -> str:
    if not tf.test.is_built_with_cuda():
        return f"TensorFlow {tf.__version__} is built without CUDA; install the tf-cuda extra or use the image mnist-tf"
    return (
        f"TensorFlow {tf.__version__} finds no usable GPU; check nvidia-smi on the host, start the container with "
        "--gpus all, install the tf-cuda extra (its CUDA libraries are not in the tf extra), or use --device cpu"
    )


def default_execution(
    device: DeviceKind,
    input_path: InputPath,
    *,
    in_shards: bool = False,  # noqa: ARG001 - shards run in a graph too
) -> Execution:
    # The streamed path is Keras's fit, which by itself compiles with XLA where there is a GPU.
    return "compiled" if device == "gpu" and input_path == "streamed" else "graph"


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, tf.errors.ResourceExhaustedError)


def join_ranks(place: RankPlace, *, timeout_s: float) -> None:
    if place.engine == "torchrun":
        raise BadInput("torchrun starts the ranks of mnist-torch; start mnist-tf with TF_CONFIG, or with --ranks alone")
    # TensorFlow fixes devices and threads when it connects. Both are known when the trainer is made.
    join(place, timeout_s=timeout_s)


def create_trainer(spec: RunSpec, data: ImageDataset, group: RankGroup | None = None) -> TensorFlowTrainer:
    if group is not None and (spec.execution == "compiled" or spec.input != "resident"):
        raise BadInput(
            f"--reduction {spec.reduction}: the ranks of mnist-tf run graph or eager steps on resident data; use "
            "--execution graph and --input resident"
        )
    capability = None
    if spec.device == "gpu":
        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        capability = details.get("compute_capability")
    check_precision(spec, capability)
    if group is None:
        return TensorFlowTrainer(spec, data)
    _set_rank_threads(spec)
    if group.size > 1:
        connect()
    return RankTrainer(spec, data, group)


def _set_rank_threads(spec: RunSpec) -> None:
    """Divide the CPUs by the ranks of this machine. Under ``exact`` on a CPU one thread computes an operation.

    Several threads share an operation's sums, so that their number would change the bits. The threads of the other
    pool only compute operations side by side.
    """
    alone = spec.reduction == "exact" and spec.device == "cpu"
    _set_threads(share=max(1, usable_cpus() // ranks_here()), intra=1 if alone else None)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    if alone and threads != 1:
        raise BadInput(
            f"--reduction exact: TensorFlow already computes with {threads} threads an operation in this process; set "
            "TF_NUM_INTRAOP_THREADS=1 before it starts"
        )
