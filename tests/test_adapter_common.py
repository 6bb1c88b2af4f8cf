"""What both adapters share: which GPUs a build can run on, and the measurement of the device's peak."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import adapter_common
from jobs.adapter_common import (
    MATRIX_SIDE,
    PEAK_S,
    ROUND_S,
    batch_sizes,
    check_gpu_code,
    gpu_code,
    peak_flop_per_s,
)
from jobs.errors import NoUsableGpu

if TYPE_CHECKING:
    from collections.abc import Callable

TORCH = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
TENSORFLOW = ["compute_90", "sm_60", "sm_70", "sm_80", "sm_89", "sm_90"]
T4, V100, A10, L4, H100, B200, RTX_5090 = (7, 5), (7, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)
CODES = ("none", "ptx", "binary")
"""From the worst to the best."""

CAPABILITIES = st.tuples(st.integers(5, 13), st.integers(0, 9))
KINDS = st.sampled_from(["sm", "compute"])


def _name(kind: str, built: tuple[int, int], suffix: str = "") -> str:
    return f"{kind}_{built[0]}{built[1]}{suffix}"


NAMES = st.builds(_name, KINDS, CAPABILITIES, st.sampled_from(["", "a", "f"]))


@pytest.mark.parametrize(
    ("capability", "architectures", "code"),
    [
        (V100, TORCH, "none"),
        (T4, TORCH, "binary"),
        (L4, TORCH, "binary"),
        ((10, 3), TORCH, "binary"),
        ((12, 1), TORCH, "binary"),
        ((11, 0), TORCH, "none"),
        ((5, 2), TENSORFLOW, "none"),
        (V100, TENSORFLOW, "binary"),
        (T4, TENSORFLOW, "binary"),
        (A10, TENSORFLOW, "binary"),
        (H100, TENSORFLOW, "binary"),
        (B200, TENSORFLOW, "ptx"),
        (RTX_5090, TENSORFLOW, "ptx"),
        (H100, ["sm_90a"], "binary"),
        ((9, 1), ["sm_90a", "compute_90a"], "none"),
        ((10, 3), ["compute_100f"], "ptx"),
        (RTX_5090, ["compute_100f", "sm_100f"], "none"),
        (H100, [], "unknown"),
        (H100, ["gfx90a"], "unknown"),
    ],
)
def test_gpu_code_of_known_gpus(capability: tuple[int, int], architectures: list[str], code: str) -> None:
    assert gpu_code(capability, architectures) == code


@given(CAPABILITIES, CAPABILITIES)
def test_gpu_code_one_binary_runs_on_its_major_version_from_its_minor(
    gpu: tuple[int, int], built: tuple[int, int]
) -> None:
    runs = gpu[0] == built[0] and gpu[1] >= built[1]
    assert gpu_code(gpu, [_name("sm", built)]) == ("binary" if runs else "none")


@given(CAPABILITIES, CAPABILITIES)
def test_gpu_code_one_ptx_runs_on_all_later_gpus(gpu: tuple[int, int], built: tuple[int, int]) -> None:
    assert gpu_code(gpu, [_name("compute", built)]) == ("ptx" if gpu >= built else "none")


@given(CAPABILITIES, st.lists(NAMES, min_size=1))
def test_gpu_code_of_a_list_is_the_best_of_its_names(gpu: tuple[int, int], names: list[str]) -> None:
    assert gpu_code(gpu, names) == max((gpu_code(gpu, [name]) for name in names), key=CODES.index)


def _check(capability: tuple[int, int], architectures: list[str], cudnn: str | None = None) -> str | None:
    build = "TensorFlow 2.21.0"
    return check_gpu_code(build, "12.5.1", architectures, gpu="NVIDIA Fake", capability=capability, cudnn=cudnn)


@pytest.mark.parametrize("cudnn", ["9.10.2", "8.9", "unknown", None])
def test_check_gpu_code_with_support_by_cudnn_is_taken(cudnn: str | None) -> None:
    assert _check(V100, TENSORFLOW, cudnn) is None


@pytest.mark.parametrize("cudnn", ["9.28.0.42", "9.11.0", "10.0"])
def test_check_gpu_code_without_support_by_cudnn_is_refused(cudnn: str) -> None:
    assert _check(T4, TENSORFLOW, cudnn) is None
    with pytest.raises(NoUsableGpu, match=rf"cuDNN {cudnn}, .* NVIDIA Fake \(compute capability 7\.0\); use a GPU of"):
        _check(V100, TENSORFLOW, cudnn)


def test_check_gpu_code_without_code_names_gpu_capability_list_and_next_step() -> None:
    with pytest.raises(NoUsableGpu) as refused:
        _check(V100, TORCH)
    assert str(refused.value) == (
        "--device gpu: TensorFlow 2.21.0 has no code for NVIDIA Fake (compute capability 7.0), only for sm_75, sm_80, "
        "sm_86, sm_90, sm_100, sm_120; use another GPU, install a release that was built for this one, "
        "or use --device cpu"
    )


@pytest.mark.parametrize("driver", [(12, 4), (11, 8), None])
def test_check_gpu_code_with_a_binary_or_an_unknown_list_asks_nothing_of_the_driver(
    driver: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_common, "cuda_version", lambda: driver)
    assert _check(T4, TENSORFLOW) is None
    assert _check(T4, []) is None


@pytest.mark.parametrize("driver", [(12, 5), (12, 10), (13, 0), None])
def test_check_gpu_code_with_ptx_says_that_the_driver_compiles(
    driver: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_common, "cuda_version", lambda: driver)
    note = _check(B200, TENSORFLOW)
    assert note is not None
    assert "has only PTX for this GPU (compute capability 10.0)" in note
    assert "--compile-cache" in note


@pytest.mark.parametrize("driver", [(12, 4), (11, 8)])
def test_check_gpu_code_with_ptx_and_an_older_driver_is_refused_with_both_versions(
    driver: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_common, "cuda_version", lambda: driver)
    words = f"only PTX of CUDA 12.5.1 for NVIDIA Fake .* up to {driver[0]}.{driver[1]}: install a driver of CUDA 12.5 "
    with pytest.raises(NoUsableGpu, match=words):
        _check(B200, TENSORFLOW)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_batch_sizes_are_those_of_an_epoch_in_its_order(examples: int, batch_size: int) -> None:
    starts = range(0, examples, batch_size)
    of_each = [min(start + batch_size, examples) - start for start in starts]
    assert batch_sizes(examples, batch_size) == sorted(set(of_each), reverse=True)


class Device:
    """Multiplies matrices in no time, and moves the clock on by the time that they would take."""

    def __init__(self, product_s: float, wait_s: float) -> None:
        self.now_s, self.rounds_s = 100.0, list[float]()
        self._product_s, self._wait_s = product_s, wait_s

    def multiply(self, times: int) -> None:
        self.rounds_s.append(times * self._product_s + self._wait_s)
        self.now_s += self.rounds_s[-1]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], tuple[float, Device]]:
    def make(product_s: float, wait_s: float) -> tuple[float, Device]:
        device = Device(product_s, wait_s)
        monkeypatch.setattr(adapter_common, "time", SimpleNamespace(perf_counter=lambda: device.now_s))
        return peak_flop_per_s(device.multiply, "gpu"), device

    return make


@pytest.mark.parametrize("product_s", [0.08, 0.3, 0.55])
def test_peak_of_slow_products_takes_one_to_two_seconds(
    product_s: float, measure: Callable[[float, float], tuple[float, Device]]
) -> None:
    speed, device = measure(product_s, 0.0)
    assert PEAK_S <= sum(device.rounds_s) <= 2.0
    assert speed == pytest.approx(2 * MATRIX_SIDE["gpu"] ** 3 / product_s)


@pytest.mark.parametrize("product_s", [2e-4, 2e-3, 2e-2])
def test_peak_of_fast_products_hardly_contains_the_wait_for_the_device(
    product_s: float, measure: Callable[[float, float], tuple[float, Device]]
) -> None:
    speed, device = measure(product_s, 1e-4)
    assert PEAK_S <= sum(device.rounds_s) <= 2.0
    assert max(device.rounds_s) == pytest.approx(ROUND_S, rel=0.1)
    assert speed == pytest.approx(2 * MATRIX_SIDE["gpu"] ** 3 / product_s, rel=0.01)
