"""The recipes once more, in plain NumPy and float64, from the canonical weights: what both frameworks must compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jobs.recipes import Convolution, Dense, Flatten, MaxPool, Relu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from jobs.recipes import Recipe

Array = np.ndarray[Any, np.dtype[np.float64]]


def forward(recipe: Recipe, weights: Mapping[str, Array], pixels: NDArray[np.uint8]) -> Array:
    """Logits (n, 10) of images (n, 28, 28), dropout off."""
    scaling = recipe.scaling
    x: Array = (pixels[..., np.newaxis].astype(np.float64) / 255 - scaling.mean) / scaling.std
    kernels = iter([name for name in weights if name.endswith(".kernel")])
    for layer in recipe.layers:
        match layer:
            case Convolution(kernel=size, padding=padding):
                name = next(kernels)
                if padding == "same":
                    edge = size // 2
                    x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
                windows = sliding_window_view(x, (size, size), axis=(1, 2))
                x = np.einsum("nyxchw,hwco->nyxo", windows, weights[name], optimize=True)
                x = x + weights[name.replace("kernel", "bias")]
            case Relu():
                x = np.maximum(x, 0)
            case MaxPool(size=size):
                n, height, width, channels = x.shape
                x = x.reshape(n, height // size, size, width // size, size, channels).max(axis=(2, 4))
            case Flatten():
                x = x.reshape(len(x), -1)
            case Dense():
                name = next(kernels)
                x = x @ weights[name] + weights[name.replace("kernel", "bias")]
    return x


def mean_loss(logits: Array, labels: NDArray[np.uint8]) -> float:
    """Mean cross-entropy of the labels."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def adam_steps(
    weight: Array, gradients: list[Array], *, learning_rate: float, beta_1: float, beta_2: float, epsilon: float
) -> Array:
    """The matched form of Adam, written out."""
    w, m, v = weight.copy(), np.zeros_like(weight), np.zeros_like(weight)
    for t, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        w = w - learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)
    return w


def sgd_steps(weight: Array, gradients: list[Array], *, learning_rate: float, momentum: float) -> Array:
    """The matched form of SGD with momentum, written out."""
    w, velocity = weight.copy(), np.zeros_like(weight)
    for g in gradients:
        velocity = momentum * velocity + g
        w = w - learning_rate * velocity
    return w
