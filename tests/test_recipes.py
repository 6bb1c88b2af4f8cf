from __future__ import annotations

import pytest

from jobs.errors import BadInput
from jobs.recipes import (
    BASIC_CNN,
    LENET,
    RECIPES,
    Dropout,
    model_flop_per_image,
    products,
    recipe_named,
    weight_shapes,
)


@pytest.mark.parametrize(("name", "parameters"), [("lenet", 431_080), ("basic-cnn", 1_676_266)])
def test_parameter_count_follows_from_the_layers(name: str, parameters: int) -> None:
    recipe = recipe_named(name)
    assert recipe.parameter_count == parameters
    assert sum(shape.size for shape in weight_shapes(recipe)) == parameters


def test_the_flattened_image_is_known_where_it_enters_a_dense_layer() -> None:
    images = {shape.name: shape.image for shape in weight_shapes(LENET)}
    assert images["dense1.kernel"] == (4, 4, 50)
    assert images["dense2.kernel"] is None


def test_flop_of_lenet_by_hand() -> None:
    multiply_adds = 24 * 24 * 5 * 5 * 20 + 8 * 8 * 5 * 5 * 20 * 50 + 800 * 500 + 500 * 10
    assert model_flop_per_image(LENET) == 6 * multiply_adds


def test_without_dropout_the_layers_and_weights_stay() -> None:
    still = BASIC_CNN.without_dropout()
    assert list(map(type, still.layers)) == list(map(type, BASIC_CNN.layers))
    rates = [layer.rate for layer in still.layers if isinstance(layer, Dropout)]
    assert rates
    assert not any(rates)
    assert weight_shapes(still) == weight_shapes(BASIC_CNN)
    assert LENET.without_dropout() == LENET


def test_an_unknown_recipe_names_the_choices() -> None:
    with pytest.raises(BadInput, match=r"'lennet'; choose one of lenet, basic-cnn"):
        recipe_named("lennet")


def test_more_epochs_than_measured_keep_the_last_reference() -> None:
    assert LENET.reference_for("mnist", 5) == LENET.reference_for("mnist", 50)
    assert LENET.reference_for("idx:other", 5) is None


def test_pooling_first_swaps_only_a_relu_and_the_pool_behind_it() -> None:
    names = [type(layer).__name__ for layer in RECIPES["lenet"].pool_before_relu().layers]
    assert names[:6] == ["Convolution", "MaxPool", "Relu", "Convolution", "MaxPool", "Relu"]
    for recipe in RECIPES.values():
        moved = recipe.pool_before_relu()
        assert sorted(map(repr, moved.layers)) == sorted(map(repr, recipe.layers))
        assert moved.pool_before_relu() == moved


def test_the_layers_that_multiply() -> None:
    found = [(product.name, product.inputs, product.multiply_adds) for product in products(LENET)]
    assert found == [
        ("conv1", (28, 28, 1), 24 * 24 * 25 * 20),
        ("conv2", (12, 12, 20), 8 * 8 * 25 * 20 * 50),
        ("dense1", (800,), 800 * 500),
        ("dense2", (500,), 500 * 10),
    ]
    assert [product.name for product in products(BASIC_CNN)] == ["conv1", "conv2", "conv3", "conv4", "dense1", "dense2"]
