from __future__ import annotations

import hashlib
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.recipes import BASIC_CNN, LENET, Recipe, weight_shapes
from jobs.training.parity_trace import weights_sha256
from jobs.training.seeding import batches, epoch_order, initial_weights

ORDER_SHA256 = "17cd2a2dc99dcd1467410a579a00d2c3f569351887cf8a68d5b71b0039c31905"


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        (LENET, "d9f133c5e23123a110d10a789057a924ad24b421ed86e7d3bb0ee28b813abd5f"),
        (BASIC_CNN, "74b078c1f2afc4349332b50579db7518f2906e2e7300001591c6bbc272698d81"),
    ],
    ids=["lenet", "basic-cnn"],
)
def test_initial_weights_of_seed_1_are_these_bits_on_every_machine(recipe: Recipe, digest: str) -> None:
    assert weights_sha256(initial_weights(recipe, 1)) == digest


def test_epoch_order_of_seed_1_is_these_bits_on_every_machine() -> None:
    order = epoch_order(1, 1, 60_000)
    assert hashlib.sha256(order.astype("<i4").tobytes()).hexdigest() == ORDER_SHA256


def test_initial_weights_of_kaiming_are_within_their_bound() -> None:
    weights = initial_weights(LENET, 7)
    for shape in weight_shapes(LENET):
        bound = 1 / sqrt(shape.fan_in)
        values = weights[shape.name]
        assert values.shape == shape.shape
        assert np.abs(values).max() <= bound
        if shape.size > 1000:
            assert values.std() == pytest.approx(bound / sqrt(3), rel=0.05)
            assert values.mean() == pytest.approx(0, abs=bound / 10)


def test_initial_weights_of_glorot_have_zero_biases() -> None:
    weights = initial_weights(BASIC_CNN, 7)
    for shape in weight_shapes(BASIC_CNN):
        values = weights[shape.name]
        if shape.is_bias:
            assert not values.any()
        else:
            assert values.std() == pytest.approx(sqrt(2 / (shape.fan_in + shape.fan_out)), rel=0.1)


@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(1, 1000), examples=st.integers(1, 500))
def test_epoch_order_is_another_permutation_in_each_epoch(seed: int, epoch: int, examples: int) -> None:
    order = epoch_order(seed, epoch, examples)
    assert sorted(order) == list(range(examples))
    assert (order == epoch_order(seed, epoch, examples)).all()
    if examples > 20:
        assert (order != epoch_order(seed, epoch + 1, examples)).any()
        assert (order != epoch_order(seed + 1, epoch, examples)).any()


@given(examples=st.integers(1, 300), batch_size=st.integers(1, 80))
def test_batches_hold_every_example_once_in_one_shape(examples: int, batch_size: int) -> None:
    order = np.arange(examples, dtype=np.int32)[::-1].copy()
    indices, counts = batches(order, batch_size)
    assert indices.shape == (len(counts), batch_size)
    assert counts.min() >= 1
    taken = np.concatenate([row[:count] for row, count in zip(indices, counts, strict=True)])
    assert (taken == order).all()
