from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jobs.mnist_torch.optimizer import FusedMatchedAdam, MatchedAdam
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
