"""Functions shared by both adapters, without importing a framework."""

from __future__ import annotations

import re
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jobs.adapter import Evaluation
from jobs.errors import BadInput, DeviceCheckFailed, NoUsableGpu
from jobs.io.cuda_driver import cuda_version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from jobs.adapter import DeviceKind, RunSpec

AMPERE: Final = (8, 0)
"""The first compute capability with TF32 and bfloat16 matrix units."""
EVALUATION_BATCH: Final = 1000
PEAK_S: Final = 1.0
"""Duration of the device's peak measurement."""
ROUND_S: Final = 0.1
"""Time between two readings of its clock, so that the synchronization with a GPU takes little of it."""
MATRIX_SIDE: Final = {"cpu": 2048, "gpu": 4096}
"""Rows and columns of its matrices."""
TURING: Final = (7, 5)
CUDNN_FROM_TURING: Final = (9, 11)
"""The first cuDNN that supports no GPU before Turing (cuDNN's support matrix)."""
CHECK_STEPS: Final = 20
"""Steps of each way that a check of ``doctor --device gpu`` compares."""


ARCHITECTURE: Final = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
"""As a build lists what it was compiled for: a binary (``sm_90``) or PTX (``compute_90``) of capability 9.0."""


def gpu_code(
    capability: tuple[int, int], architectures: Collection[str]
) -> Literal["binary", "ptx", "none", "unknown"]:
    """The best code that a build for ``architectures`` has for a GPU of ``capability``.

    A binary runs on its own major version from its minor version on; PTX, which the driver compiles, on any later
    capability. Code with the suffix ``a`` runs on exactly its capability, PTX with ``f`` only where the binary would.
    ``"unknown"`` if no name has this form. From the CUDA C++ Programming Guide, "Binary Compatibility" and "PTX
    Compatibility".
    """
    found = set()
    matches = [match for name in architectures if (match := ARCHITECTURE.fullmatch(name))]
    for kind, major, minor, suffix in (match.groups() for match in matches):
        built = int(major), int(minor)
        if suffix == "a":
            fits = capability == built
        else:
            fits = capability >= built and (capability[0] == built[0] or (kind == "compute" and not suffix))
        if fits:
            found.add(kind)
    if not matches:
        return "unknown"
    return "binary" if "sm" in found else "ptx" if found else "none"


def check_gpu_code(
    build: str,
    toolkit: str | None,
    architectures: Collection[str],
    *,
    gpu: str,
    capability: tuple[int, int],
    cudnn: str | None = None,
) -> str | None:
    """Refuse a GPU that the installed framework has no code for; the note to the user where it has only PTX.

    ``build`` is the framework with its version, ``toolkit`` the CUDA version of its build, ``cudnn`` that of cuDNN,
    where ``architectures`` say nothing of it. PTX of a CUDA version needs a driver of this version or later (CUDA
    Compatibility, "Minor Version Compatibility").

    Raises:
        NoUsableGpu: there is no code for the GPU, or its driver cannot compile it.
    """
    code, version = gpu_code(capability, architectures), ".".join(map(str, capability))
    if code == "none":
        raise NoUsableGpu(
            f"--device gpu: {build} has no code for {gpu} (compute capability {version}), only for "
            f"{', '.join(architectures)}; use another GPU, install a release that was built for this one, "
            "or use --device cpu"
        )
    if capability < TURING and (_version(cudnn) or (0, 0)) >= CUDNN_FROM_TURING:
        raise NoUsableGpu(
            f"--device gpu: cuDNN {cudnn}, which {build} uses, does not support {gpu} (compute capability {version}); "
            "use a GPU of 7.5 or later, or use --device cpu"
        )
    if code != "ptx":
        return None
    needed, supported = _version(toolkit), cuda_version()
    if needed and supported and supported < needed:
        raise NoUsableGpu(
            f"--device gpu: {build} has only PTX of CUDA {toolkit} for {gpu} (compute capability {version}), and the "
            f"driver supports CUDA up to {supported[0]}.{supported[1]}: install a driver of CUDA "
            f"{needed[0]}.{needed[1]} or later, or use --device cpu"
        )
    return (
        f"{build} has only PTX for this GPU (compute capability {version}): the driver compiles the kernels at the "
        "first start, which may take long; train --compile-cache DIR keeps them for the next one"
    )


def _version(text: str | None) -> tuple[int, int] | None:
    """Major and minor number."""
    numbers = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def batch_sizes(examples: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches: the whole batch's, then that of a smaller last one."""
    return list(dict.fromkeys(size for size in (min(batch_size, examples), examples % batch_size) if size))


def check_precision(spec: RunSpec, compute_capability: tuple[int, int] | None) -> None:
    """Refuse a precision that the device does not support; the capability is ``None`` if not known.

    Raises:
        BadInput: another precision must be chosen.
    """
    if spec.precision == "tf32" and spec.device == "cpu":
        raise BadInput("--precision tf32: only NVIDIA GPUs have it; use fp32 or bf16")
    if spec.precision in {"tf32", "bf16"} and compute_capability is not None and compute_capability < AMPERE:
        raise BadInput(f"--precision {spec.precision}: needs compute capability 8.0 or later; use fp32")


def evaluate_in_batches(
    examples: int, batch_sums: Callable[[int, int], tuple[Any, Any]], check: Callable[[], None] | None
) -> Evaluation:
    """Add up ``batch_sums(start, stop)``: the sum of these examples' losses, and the number of right answers.

    Both may be scalars on the device: they are read once, at the end.
    """
    loss: Any = 0.0
    correct: Any = 0
    for start in range(0, examples, EVALUATION_BATCH):
        if check is not None:
            check()
        batch_loss, batch_correct = batch_sums(start, min(start + EVALUATION_BATCH, examples))
        loss += batch_loss
        correct += batch_correct
    return Evaluation(loss=float(loss) / examples, correct=int(correct), examples=examples)


def peak_flop_per_s(multiply: Callable[[int], object], device: DeviceKind) -> float:
    """The highest speed of matrix products measured within ``PEAK_S``, by the number that takes about ``ROUND_S``.

    ``multiply(n)`` computes n products of two matrices of ``MATRIX_SIDE`` and waits for the device. The first readings
    are of one product: where the device computes float64 slowly, a fixed number of them would take many seconds.
    """
    multiply(1)
    product_s, end_s = inf, time.perf_counter() + PEAK_S
    while (start_s := time.perf_counter()) < end_s:
        times = max(1, round(ROUND_S / product_s))
        multiply(times)
        product_s = min(product_s, (time.perf_counter() - start_s) / times)
    return 2 * MATRIX_SIDE[device] ** 3 / product_s


def check_agreement(
    first: Mapping[str, NDArray[Any]],
    second: Mapping[str, NDArray[Any]],
    *,
    names: tuple[str, str],
    tolerance: float = 0.0,
) -> float:
    """The largest difference between two ways to compute the same arrays, for a check of the device.

    A difference is relative to the largest magnitude in the first way's array. A tolerance of 0 asks for equal bits.

    Raises:
        DeviceCheckFailed: an array differs by more than ``tolerance``, or holds a value that is not finite.
    """
    differences, unequal = {}, []
    for name, array in first.items():
        if not (np.isfinite(array).all() and np.isfinite(second[name]).all()):
            raise DeviceCheckFailed(f"{names[0]} and {names[1]} over {CHECK_STEPS} steps: {name} is not finite")
        one, other = array.astype(np.float64), second[name].astype(np.float64)
        differences[name] = float(np.abs(one - other).max()) / (float(np.abs(one).max()) or 1.0)
        if differences[name] > tolerance or (tolerance == 0 and array.tobytes() != second[name].tobytes()):
            unequal.append(name)
    if unequal:
        worst = max(unequal, key=differences.__getitem__)
        raise DeviceCheckFailed(
            f"{names[0]} and {names[1]} differ after {CHECK_STEPS} steps in {len(unequal)} of {len(first)} arrays, "
            f"most in {worst}: by {differences[worst]:.1e} of its largest value; allowed are {tolerance:.1e}"
        )
    return max(differences.values())
