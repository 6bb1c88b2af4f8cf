"""A recipe as a Keras model, and its weights in and out of the canonical layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from jobs.mnist_tf.dropout import CounterDropout
from jobs.mnist_tf.numerics import POLICY
from jobs.recipes import IMAGE_SIDE, Convolution, Dense, Dropout, Flatten, MaxPool, Relu, weight_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from jobs.adapter import Precision
    from jobs.recipes import Recipe, Scaling


def build_model(recipe: Recipe, precision: Precision, dropout_seed: int | None) -> Any:
    """The recipe's layers with Keras's own initial weights; images (n, 28, 28, 1) in, logits (n, 10) out.

    Without ``dropout_seed``, dropout is Keras's own.
    """
    policy = keras.DTypePolicy(POLICY[precision])
    layers: list[Any] = [keras.Input((IMAGE_SIDE, IMAGE_SIDE, 1), dtype=policy.compute_dtype)]
    for layer in recipe.layers:
        match layer:
            case Convolution(filters=filters, kernel=kernel, padding=padding):
                layers.append(keras.layers.Conv2D(filters, kernel, padding=padding, dtype=policy))
            case Relu():
                layers.append(keras.layers.ReLU(dtype=policy))
            case MaxPool(size=size):
                layers.append(keras.layers.MaxPooling2D(size, dtype=policy))
            case Dropout(rate=rate):
                if dropout_seed is None:
                    layers.append(keras.layers.Dropout(rate, dtype=policy))
                else:
                    layers.append(CounterDropout(rate, seed=dropout_seed, stream=len(layers), dtype=policy))
            case Flatten():
                layers.append(keras.layers.Flatten(dtype=policy))
            case Dense(units=units):
                layers.append(keras.layers.Dense(units, dtype=policy))
    return keras.Sequential(layers)


def scale(pixels: tf.Tensor, scaling: Scaling, dtype: tf.DType) -> tf.Tensor:
    """Pixels (n, 28, 28) in 0...255 to images (n, 28, 28, 1) of ``dtype``."""
    images = tf.cast(tf.expand_dims(pixels, -1), dtype) / 255
    return (images - tf.constant(scaling.mean, dtype)) / tf.constant(scaling.std, dtype)


def to_canonical(variables: Iterable[Any], recipe: Recipe) -> dict[str, NDArray[np.float64]]:
    """Variables in the model's order, as arrays by name. The canonical layout is Keras's own."""
    pairs = zip(weight_shapes(recipe), variables, strict=True)
    return {shape.name: np.asarray(variable.numpy(), dtype=np.float64) for shape, variable in pairs}


def write_weights(model: Any, recipe: Recipe, weights: Mapping[str, NDArray[np.float64]]) -> None:
    """Load weights given in the canonical layout, in place."""
    for shape, variable in zip(weight_shapes(recipe), model.trainable_variables, strict=True):
        variable.assign(weights[shape.name].astype(variable.dtype))
