from __future__ import annotations

import pytest
import torch

from jobs.mnist_torch.cpu_layers import ONEDNN_LINEAR, FastCpuDropout, OneDnnLinear


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7])
def test_dropout_rate_and_mean_are_as_expected(rate: float) -> None:
    torch.manual_seed(1)
    dropped = FastCpuDropout(rate)(torch.ones(1000, 1001, dtype=torch.float64))
    share = float((dropped == 0).double().mean())
    # Five standard deviations of a share of a million draws.
    assert share == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 1e6) ** 0.5)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / (1 - rate), rel=1e-4)]


def test_dropout_elements_are_independent() -> None:
    torch.manual_seed(1)
    kept = (FastCpuDropout(0.5)(torch.ones(400_000)) != 0).double() - 0.5
    for lag in (1, 2, 3, 4, 5, 64):
        # Four elements share a word: neighbours must not know of each other.
        assert abs(float((kept[:-lag] * kept[lag:]).mean())) < 5 * 0.25 / 400_000**0.5


def test_dropout_is_off_in_evaluation_and_repeats_with_its_seed() -> None:
    dropout, x = FastCpuDropout(0.7), torch.rand(8, 3, 5, 5).to(memory_format=torch.channels_last)
    assert dropout.eval()(x) is x
    dropout.train()
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(dropout(x))
    assert torch.equal(*results)
    assert results[0].is_contiguous(memory_format=torch.channels_last)


def test_dropout_gradient_has_the_same_mask() -> None:
    x = torch.ones(64, 33, requires_grad=True)
    dropped = FastCpuDropout(0.7)(x)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


def test_dense_layer_output_and_gradients_equal_torch() -> None:
    assert ONEDNN_LINEAR is not None, "this build of torch lacks it: then nothing is tested here"
    torch.manual_seed(1)
    layer, x = OneDnnLinear(800, 500), torch.rand(64, 800)
    exact = torch.nn.Linear(800, 500).double()
    exact.load_state_dict(layer.state_dict())
    weights = torch.rand(64, 500)

    def outputs_and_gradients(model: torch.nn.Linear, dtype: torch.dtype) -> list[torch.Tensor | None]:
        inputs = x.detach().to(dtype, copy=True).requires_grad_()
        outputs = model(inputs)
        (outputs * weights.to(dtype)).sum().backward()
        return [outputs.detach(), inputs.grad, model.weight.grad, model.bias.grad]

    fast, expected = outputs_and_gradients(layer, torch.float32), outputs_and_gradients(exact, torch.float64)
    for one, other in zip(fast, expected, strict=True):
        assert one is not None
        assert other is not None
        # Products of up to 800 float32 numbers of size 1: rounding grows as the root of their count, at most.
        assert float((one.double() - other).abs().max() / other.abs().max()) < 1e-6


def test_dense_layer_other_types_are_computed_by_torch() -> None:
    layer, x = OneDnnLinear(7, 5).double(), torch.rand(3, 7, dtype=torch.float64)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert OneDnnLinear(7, 5)(torch.rand(3, 7)).dtype == torch.bfloat16
