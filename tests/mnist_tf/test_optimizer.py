from __future__ import annotations

import keras
import numpy as np
import pytest

from jobs.mnist_tf.optimizer import MatchedAdam, MatchedSgd
from jobs.recipes import Adam, Sgd
from tests.support import reference

RATES = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}


def _steps(optimizer: keras.optimizers.Optimizer, weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    variable = keras.Variable(weight, dtype="float64")
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
    return np.asarray(variable)


@pytest.fixture
def case() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(5, 4)), [rng.normal(size=(5, 4)) * 10.0**-step for step in range(8)]


def test_matched_adam_equals_the_reference(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    expected = reference.adam_steps(weight, gradients, learning_rate=0.001, **RATES)
    weight_after = _steps(MatchedAdam(0.001, Adam(**RATES)), weight, gradients)
    assert np.abs(weight_after - expected).max() <= 1e-15


def test_matched_sgd_equals_the_reference(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    expected = reference.sgd_steps(weight, gradients, learning_rate=0.001, momentum=0.5)
    weight_after = _steps(MatchedSgd(0.001, Sgd(momentum=0.5)), weight, gradients)
    assert np.abs(weight_after - expected).max() <= 1e-15


def test_published_adam_differs_from_the_reference(case: tuple[np.ndarray, list[np.ndarray]]) -> None:
    weight, gradients = case
    expected = reference.adam_steps(weight, gradients, learning_rate=0.001, **RATES)
    weight_after = _steps(keras.optimizers.Adam(0.001, **RATES), weight, gradients)
    assert np.abs(weight_after - expected).max() > 1e-11
