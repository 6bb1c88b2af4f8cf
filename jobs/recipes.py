"""The recipes: models and their training settings as data, which each adapter converts to its framework's model.

A new recipe is one entry in :data:`_RECIPES`. ``lenet`` and ``basic-cnn`` come from the blog post "TensorFlow 2.0과
PyTorch 비교" (2020-08-13): ``basic-cnn`` is its TensorFlow program, ``lenet`` its PyTorch program.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from math import prod
from typing import Final, Literal

IMAGE_SIDE: Final = 28
CLASSES: Final = 10


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A square convolution with stride 1 and bias."""

    filters: int
    kernel: int
    padding: Literal["same", "valid"]


@dataclass(frozen=True, kw_only=True)
class Relu:
    """``max(x, 0)``."""


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Maximum over ``size`` x ``size`` windows that do not overlap."""

    size: int


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Sets ``rate`` of the inputs to zero in training and scales the rest by 1 / (1 - rate)."""

    rate: float


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """Images to vectors, in height, width, channel order."""


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Fully connected, with bias."""

    units: int


Layer = Convolution | Relu | MaxPool | Dropout | Flatten | Dense


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """``v = momentum * v + g; w = w - learning_rate * v``."""

    momentum: float


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam; its ``matched`` form is that of Kingma and Ba 2015, section 2, last paragraph, which is also Keras's.

    At step t, per weight: ``m += (1 - beta_1) (g - m)``, ``v += (1 - beta_2) (g² - v)``,
    ``w -= learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)``: epsilon stands outside the
    bias-corrected root, unlike in ``torch.optim.Adam``.
    """

    beta_1: float
    beta_2: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """``(x / 255 - mean) / std`` for pixels x in 0...255."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training recipe; logits leave the last layer, the loss is cross-entropy over them.

    A run with the recipe's own settings whose test accuracy is under ``reference_accuracy`` is ``below_reference``.
    It has a tuple per dataset, indexed by epochs - 1, whose last entry also holds for more epochs. docs/recipes.md
    names the runs behind the figures. ``target_accuracy`` is the accuracy on MNIST whose time a report gives; for the
    post's recipes it is at or just under what the post reached.
    """

    name: str
    layers: tuple[Layer, ...]
    scaling: Scaling
    optimizer: Sgd | Adam
    initializer: Literal["glorot_uniform", "kaiming_uniform"]
    learning_rate: float
    batch_size: int
    epochs: int
    seed: int
    target_accuracy: float
    reference_accuracy: dict[str, tuple[float, ...]] = field(hash=False)

    def __post_init__(self) -> None:
        for dataset in ("mnist", "synthetic"):
            if not self.reference_accuracy.get(dataset):
                raise ValueError(f"recipe {self.name!r} needs a reference accuracy on {dataset}: train it and state it")

    @property
    def parameter_count(self) -> int:
        return sum(shape.size for shape in weight_shapes(self))

    def without_dropout(self) -> Recipe:
        """The same recipe with every dropout rate 0, for parity traces; the layers, and so the code, are the same."""
        layers = (replace(layer, rate=0.0) if isinstance(layer, Dropout) else layer for layer in self.layers)
        return replace(self, layers=tuple(layers))

    def pool_before_relu(self) -> Recipe:
        """The same function with each max-pool before the ReLU before it, so that ReLU has a quarter of the elements.

        Both are monotone, so the values are equal. The gradients are too: a positive maximum of a window is the same
        element in both orders, and otherwise they are zero.
        """
        layers = list(self.layers)
        for index, (layer, following) in enumerate(pairwise(self.layers)):
            if isinstance(layer, Relu) and isinstance(following, MaxPool):
                layers[index], layers[index + 1] = following, layer
        return replace(self, layers=tuple(layers))

    def reference_for(self, dataset: str, epochs: int) -> float | None:
        """Lowest acceptable test accuracy after ``epochs`` epochs; ``None`` for a dataset without a reference."""
        references = self.reference_accuracy.get(dataset)
        return references[min(epochs, len(references)) - 1] if references else None


@dataclass(frozen=True, kw_only=True)
class WeightShape:
    """One trainable array in the canonical layout.

    Convolution kernels are ``(height, width, in, out)``, dense kernels ``(in, out)``, biases ``(out,)``; a dense
    kernel after a flatten counts its inputs in height, width, channel order.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    image: tuple[int, int, int] | None = None
    """(height, width, channels) that was flattened into this dense kernel's inputs, else ``None``."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(".bias")


@dataclass(frozen=True, kw_only=True)
class MatmulLayer:
    """A layer computed as a matrix product; training takes two or three products of its size."""

    name: str
    layer: Convolution | Dense
    inputs: tuple[int, ...]
    """(height, width, channels) of a convolution's images, (features,) of a dense layer's."""
    multiply_adds: int
    """For one image in the forward product; each of the two backward ones has as many."""


def _infer_shapes(recipe: Recipe) -> tuple[tuple[WeightShape, ...], tuple[MatmulLayer, ...]]:
    """The recipe's trainable arrays, and its layers with a matrix product."""
    side, channels, image, features = IMAGE_SIDE, 1, None, 0
    weights: list[WeightShape] = []
    matmuls: list[MatmulLayer] = []
    convolution_numbers, dense_numbers = count(1), count(1)
    for layer in recipe.layers:
        match layer:
            case Convolution(filters=filters, kernel=kernel, padding=padding):
                name, inputs = f"conv{next(convolution_numbers)}", (side, side, channels)
                side = side if padding == "same" else side - kernel + 1
                shape, fan_out = (kernel, kernel, channels, filters), kernel * kernel * filters
                weights += _kernel_and_bias(name, shape, fan_out, None)
                multiply_adds = side * side * prod(shape)
                matmuls.append(MatmulLayer(name=name, layer=layer, inputs=inputs, multiply_adds=multiply_adds))
                channels = filters
            case MaxPool(size=size):
                side //= size
            case Flatten():
                image = (side, side, channels)
                features = prod(image)
            case Dense(units=units):
                name = f"dense{next(dense_numbers)}"
                weights += _kernel_and_bias(name, (features, units), units, image)
                matmuls.append(MatmulLayer(name=name, layer=layer, inputs=(features,), multiply_adds=features * units))
                features, image = units, None
            case Relu() | Dropout():
                pass
    return tuple(weights), tuple(matmuls)


def _kernel_and_bias(
    layer: str, shape: tuple[int, ...], fan_out: int, image: tuple[int, int, int] | None
) -> list[WeightShape]:
    fan_in = prod(shape[:-1])
    return [
        WeightShape(name=f"{layer}.kernel", shape=shape, fan_in=fan_in, fan_out=fan_out, image=image),
        WeightShape(name=f"{layer}.bias", shape=shape[-1:], fan_in=fan_in, fan_out=fan_out),
    ]


def weight_shapes(recipe: Recipe) -> tuple[WeightShape, ...]:
    """The recipe's trainable arrays, in the order of its layers, each kernel before its bias."""
    return _infer_shapes(recipe)[0]


def products(recipe: Recipe) -> tuple[MatmulLayer, ...]:
    """The recipe's layers with a matrix product, in their order."""
    return _infer_shapes(recipe)[1]


def model_flop_per_image(recipe: Recipe) -> int:
    """Floating-point operations to train on one image.

    Convolutions and dense layers only: 2 per multiply-add, and the backward pass costs twice the forward one
    (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1), so 3 x 2 x multiply-adds.
    """
    return 6 * sum(product.multiply_adds for product in products(recipe))


_RECIPES: Final = (
    Recipe(
        name="lenet",
        layers=(
            *(Convolution(filters=20, kernel=5, padding="valid"), Relu(), MaxPool(size=2)),
            *(Convolution(filters=50, kernel=5, padding="valid"), Relu(), MaxPool(size=2)),
            *(Flatten(), Dense(units=500), Relu(), Dense(units=CLASSES)),
        ),
        scaling=Scaling(mean=0.1307, std=0.3081),
        optimizer=Sgd(momentum=0.5),
        initializer="kaiming_uniform",
        learning_rate=0.001,
        batch_size=64,
        epochs=5,
        seed=1,
        target_accuracy=0.95,
        reference_accuracy={"mnist": (0.84, 0.89, 0.91, 0.93, 0.945), "synthetic": (0.53, 0.68, 0.78, 0.84, 0.87)},
    ),
    Recipe(
        name="basic-cnn",
        layers=(
            *(Convolution(filters=32, kernel=3, padding="same"), Relu()),
            *(Convolution(filters=32, kernel=3, padding="same"), Relu(), MaxPool(size=2), Dropout(rate=0.7)),
            *(Convolution(filters=64, kernel=3, padding="same"), Relu()),
            *(Convolution(filters=64, kernel=3, padding="same"), Relu(), MaxPool(size=2), Dropout(rate=0.7)),
            *(Flatten(), Dense(units=512), Relu(), Dropout(rate=0.7), Dense(units=CLASSES)),
        ),
        scaling=Scaling(mean=0.0, std=1.0),
        optimizer=Adam(beta_1=0.9, beta_2=0.999, epsilon=1e-7),
        initializer="glorot_uniform",
        learning_rate=0.001,
        batch_size=64,
        epochs=1,
        seed=1,
        target_accuracy=0.9776,
        reference_accuracy={"mnist": (0.97,), "synthetic": (0.92,)},
    ),
)

RECIPES: Final = {recipe.name: recipe for recipe in _RECIPES}
LENET: Final = RECIPES["lenet"]
BASIC_CNN: Final = RECIPES["basic-cnn"]
