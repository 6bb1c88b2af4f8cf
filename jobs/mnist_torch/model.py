"""A recipe as a torch module, and its weights in and out of the canonical layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from jobs.recipes import IMAGE_SIDE, Convolution, Dense, Dropout, Flatten, MaxPool, Relu, weight_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from jobs.recipes import Recipe, Scaling, WeightShape


def build_model(
    recipe: Recipe, *, dropout: Callable[[float], nn.Module] = nn.Dropout, dense: type[nn.Linear] = nn.Linear
) -> nn.Sequential:
    """The recipe's layers with torch's own initial weights; images (n, 1, 28, 28) in, logits (n, 10) out."""
    modules: list[nn.Module] = []
    channels, side, features = 1, IMAGE_SIDE, 0
    for layer in recipe.layers:
        match layer:
            case Convolution(filters=filters, kernel=kernel, padding=padding):
                modules.append(nn.Conv2d(channels, filters, kernel, padding=padding))
                channels, side = filters, side if padding == "same" else side - kernel + 1
            case Relu():
                modules.append(nn.ReLU())
            case MaxPool(size=size):
                modules.append(nn.MaxPool2d(size))
                side //= size
            case Dropout(rate=rate):
                modules.append(dropout(rate))
            case Flatten():
                modules.append(nn.Flatten())
                features = channels * side * side
            case Dense(units=units):
                modules.append(dense(features, units))
                features = units
    return nn.Sequential(*modules)


def scale(pixels: torch.Tensor, scaling: Scaling, dtype: torch.dtype) -> torch.Tensor:
    """Pixels (n, 28, 28) in 0...255 to images (n, 1, 28, 28) of ``dtype``."""
    return pixels.unsqueeze(1).to(dtype).div_(255).sub_(scaling.mean).div_(scaling.std)


def to_canonical(tensors: Iterable[torch.Tensor], recipe: Recipe) -> dict[str, NDArray[np.float64]]:
    """Tensors in the model's order and layout, as arrays by name in the canonical layout."""
    return {
        # A copy: a float64 tensor on the CPU would share its memory with the array.
        shape.name: _to_canonical(tensor.detach().to("cpu", torch.float64, copy=True).numpy(), shape)
        for shape, tensor in zip(weight_shapes(recipe), tensors, strict=True)
    }


@torch.no_grad()
def write_weights(model: nn.Module, recipe: Recipe, weights: Mapping[str, NDArray[np.float64]]) -> None:
    """Load weights given in the canonical layout, in place."""
    for shape, parameter in zip(weight_shapes(recipe), model.parameters(), strict=True):
        parameter.copy_(torch.tensor(_from_canonical(weights[shape.name], shape)).reshape(parameter.shape))


def _to_canonical(array: NDArray[np.float64], shape: WeightShape) -> NDArray[np.float64]:
    image = _image(shape)
    if image is None:  # torch keeps (out, in)
        return np.ascontiguousarray(array.T)
    height, width, channels = image  # torch keeps and flattens (channels, height, width)
    array = array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0)
    return np.ascontiguousarray(array).reshape(shape.shape)


def _from_canonical(array: NDArray[np.float64], shape: WeightShape) -> NDArray[np.float64]:
    image = _image(shape)
    array = array.T if image is None else array.reshape(*image, -1).transpose(3, 2, 0, 1)
    return np.ascontiguousarray(array)


def _image(shape: WeightShape) -> tuple[int, ...] | None:
    """(height, width, channels) of what one output of the weight sees, where that is an image."""
    return shape.shape[:3] if len(shape.shape) == 4 else shape.image
