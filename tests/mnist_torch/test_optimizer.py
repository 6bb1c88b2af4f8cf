from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jobs.mnist_torch.optimizer import FusedMatchedAdam, MatchedAdam, _step_factors
from jobs.recipes import Adam
from tests.support import reference

RATES = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}


def _steps(make: Any, weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimizer = make([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


@pytest.fixture
def case() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(5, 4)), [rng.normal(size=(5, 4)) * 10.0**-step for step in range(8)]


@pytest.mark.parametrize("form", [MatchedAdam, FusedMatchedAdam])
def test_matched_adam_equals_the_reference(form: Any, case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    expected = reference.adam_steps(weight, gradients, learning_rate=0.001, **RATES)
    weight_after = _steps(lambda p: form(p, 0.001, Adam(**RATES)), weight, gradients)
    assert np.abs(weight_after - expected).max() <= 1e-15


@pytest.mark.parametrize("fused", [False, True])
def test_published_sgd_equals_the_reference(*, fused: bool, case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    expected = reference.sgd_steps(weight, gradients, learning_rate=0.001, momentum=0.5)
    weight_after = _steps(lambda p: torch.optim.SGD(p, lr=0.001, momentum=0.5, fused=fused), weight, gradients)
    assert np.abs(weight_after - expected).max() <= 1e-15


def test_published_adam_differs_from_the_reference(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    expected = reference.adam_steps(weight, gradients, learning_rate=0.001, **RATES)
    weight_after = _steps(lambda p: torch.optim.Adam(p, lr=0.001, betas=(0.9, 0.999), eps=1e-7), weight, gradients)
    assert np.abs(weight_after - expected).max() > 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matched_adam_has_the_bits_of_its_form_one_weight_at_a_time(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    recipe = Adam(**RATES)
    layout = torch.channels_last
    weights = [torch.rand(8, 4, 3, 3, dtype=dtype).to(memory_format=layout), torch.rand(8, dtype=dtype)]
    params = [torch.nn.Parameter(weight.clone()) for weight in weights]
    m, v = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    optimizer = MatchedAdam(params, 0.001, recipe)
    for t in range(1, 21):
        counter = torch.tensor(t, dtype=torch.float64)
        factor = 0.001 * torch.sqrt(1 - recipe.beta_2**counter) / (1 - recipe.beta_1**counter)
        for index, param in enumerate(params):
            gradient = param.grad = torch.rand_like(param) * 10.0 ** (-t)
            m[index].lerp_(gradient, 1 - recipe.beta_1)
            v[index].lerp_(gradient.square(), 1 - recipe.beta_2)
            weights[index].sub_(m[index] * factor.to(dtype) / v[index].sqrt().add_(recipe.epsilon))
        optimizer.step()
        for param, weight in zip(params, weights, strict=True):
            assert torch.equal(param, weight), f"step {t}"


def test_step_factors_end_where_they_no_longer_change() -> None:
    """A step beyond the table reads its last entry."""
    recipe = Adam(**RATES)
    factors = _step_factors(0.001, recipe).tolist()
    assert factors[-1] == 0.001
    counters = torch.arange(1, len(factors) + 1000, 97, dtype=torch.float64)
    for counter in counters:
        expected = 0.001 * torch.sqrt(1 - recipe.beta_2**counter) / (1 - recipe.beta_1**counter)
        assert factors[min(int(counter), len(factors) - 1)] == float(expected), counter


def test_matched_adam_after_the_table_still_counts_and_steps(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimizer = MatchedAdam([parameter], 0.001, Adam(**RATES))
    (group,) = optimizer.param_groups
    group["t"].fill_(10.0**6)
    parameter.grad = torch.tensor(gradients[0])
    optimizer.step()
    assert group["t"] == 10.0**6 + 1
    # m is a tenth of the gradient, and v a thousandth of its square.
    expected = weight - 0.001 * 0.1 * gradients[0] / (np.sqrt(0.001) * np.abs(gradients[0]) + RATES["epsilon"])
    assert np.abs(parameter.detach().numpy() - expected).max() < 1e-9
