"""The recipes: what is trained and how, as data that each adapter turns into its framework's own model.

Both come from the post "TensorFlow 2.0과 PyTorch 비교" (2020-08-13): ``basic-cnn`` is its TensorFlow program,
``lenet`` its PyTorch program. Each is trained in both frameworks here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Final, Literal

from jobs.errors import BadInput

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
    pass


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
    pass


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

    ``reference_accuracy`` is the test accuracy under which a run with the recipe's own settings is
    ``below_reference``: per dataset, a tuple indexed by epochs - 1 whose last entry also holds for more
    epochs. docs/recipes.md says which runs the figures come from. ``target_accuracy`` is at or just under
    what the post reached.
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
    parameter_count: int
    target_accuracy: float
    reference_accuracy: dict[str, tuple[float, ...]] = field(hash=False)

    def without_dropout(self) -> Recipe:
        """The same recipe with every dropout rate 0, for proving parity: the layers, and so the code, stay."""
        still = (replace(layer, rate=0.0) if isinstance(layer, Dropout) else layer for layer in self.layers)
        return replace(self, layers=tuple(still))

    def pool_before_relu(self) -> Recipe:
        """The same function with each max-pool before the ReLU that precedes it: a quarter of the elements to rectify.

        Both are monotone, so the values are the same, and so are the gradients: where a window's maximum is
        positive, it is the same element; where it is not, they are zero either way.
        """
        layers = list(self.layers)
        for index, (layer, after) in enumerate(pairwise(self.layers)):
            if isinstance(layer, Relu) and isinstance(after, MaxPool):
                layers[index], layers[index + 1] = after, layer
        return replace(self, layers=tuple(layers))

    def reference_for(self, dataset: str, epochs: int) -> float | None:
        """Lowest acceptable test accuracy after ``epochs`` epochs on ``dataset``; ``None`` where there is none."""
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
    image: tuple[int, int, int] | None
    """(height, width, channels) that was flattened into this dense kernel's inputs, else ``None``."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(".bias")


@dataclass(frozen=True, kw_only=True)
class MatmulLayer:
    """A layer that multiplies: what training costs is two or three products of its size."""

    name: str
    layer: Convolution | Dense
    inputs: tuple[int, ...]
    """(height, width, channels) of a convolution's images, (features,) of a dense layer's."""
    multiply_adds: int
    """For one image, in the forward product; each of the two backward ones has as many."""


@dataclass(frozen=True, kw_only=True)
class _Walk:
    weights: tuple[WeightShape, ...]
    products: tuple[MatmulLayer, ...]


def _walk(recipe: Recipe) -> _Walk:
    side, channels, flat_from, features = IMAGE_SIDE, 1, None, 0
    weights: list[WeightShape] = []
    products: list[MatmulLayer] = []
    for layer in recipe.layers:
        match layer:
            case Convolution(filters=filters, kernel=kernel, padding=padding):
                name, inputs = f"conv{1 + _count(products, Convolution)}", (side, side, channels)
                side = side if padding == "same" else side - kernel + 1
                shape = (kernel, kernel, channels, filters)
                fans = (kernel * kernel * channels, kernel * kernel * filters)
                weights += _layer_weights(name, shape, fans, None)
                multiply_adds = side * side * prod(shape)
                products.append(MatmulLayer(name=name, layer=layer, inputs=inputs, multiply_adds=multiply_adds))
                channels = filters
            case MaxPool(size=size):
                side //= size
            case Flatten():
                flat_from = (side, side, channels)
                features = prod(flat_from)
            case Dense(units=units):
                name = f"dense{1 + _count(products, Dense)}"
                weights += _layer_weights(name, (features, units), (features, units), flat_from)
                products.append(MatmulLayer(name=name, layer=layer, inputs=(features,), multiply_adds=features * units))
                features, flat_from = units, None
            case Relu() | Dropout():
                pass
    return _Walk(weights=tuple(weights), products=tuple(products))


def _count(products: list[MatmulLayer], kind: type[Convolution | Dense]) -> int:
    return sum(isinstance(product.layer, kind) for product in products)


def _layer_weights(
    layer: str, shape: tuple[int, ...], fans: tuple[int, int], image: tuple[int, int, int] | None
) -> list[WeightShape]:
    fan_in, fan_out = fans
    return [
        WeightShape(name=f"{layer}.kernel", shape=shape, fan_in=fan_in, fan_out=fan_out, image=image),
        WeightShape(name=f"{layer}.bias", shape=shape[-1:], fan_in=fan_in, fan_out=fan_out, image=None),
    ]


def weight_shapes(recipe: Recipe) -> tuple[WeightShape, ...]:
    """The recipe's trainable arrays, in the order of its layers, each kernel before its bias."""
    return _walk(recipe).weights


def products(recipe: Recipe) -> tuple[MatmulLayer, ...]:
    """The recipe's layers that multiply, in their order."""
    return _walk(recipe).products


def model_flop_per_image(recipe: Recipe) -> int:
    """Floating-point operations to train on one image.

    Convolutions and dense layers only: 2 per multiply-add, and the backward pass costs twice the forward one
    (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1), so 3 x 2 x multiply-adds.
    """
    return 6 * sum(product.multiply_adds for product in products(recipe))


LENET: Final = Recipe(
    name="lenet",
    layers=(
        Convolution(filters=20, kernel=5, padding="valid"),
        Relu(),
        MaxPool(size=2),
        Convolution(filters=50, kernel=5, padding="valid"),
        Relu(),
        MaxPool(size=2),
        Flatten(),
        Dense(units=500),
        Relu(),
        Dense(units=CLASSES),
    ),
    scaling=Scaling(mean=0.1307, std=0.3081),
    optimizer=Sgd(momentum=0.5),
    initializer="kaiming_uniform",
    learning_rate=0.001,
    batch_size=64,
    epochs=5,
    seed=1,
    parameter_count=431_080,
    target_accuracy=0.95,
    reference_accuracy={"mnist": (0.84, 0.89, 0.91, 0.93, 0.945), "synthetic": (0.55, 0.65, 0.73, 0.79, 0.83)},
)

BASIC_CNN: Final = Recipe(
    name="basic-cnn",
    layers=(
        Convolution(filters=32, kernel=3, padding="same"),
        Relu(),
        Convolution(filters=32, kernel=3, padding="same"),
        Relu(),
        MaxPool(size=2),
        Dropout(rate=0.7),
        Convolution(filters=64, kernel=3, padding="same"),
        Relu(),
        Convolution(filters=64, kernel=3, padding="same"),
        Relu(),
        MaxPool(size=2),
        Dropout(rate=0.7),
        Flatten(),
        Dense(units=512),
        Relu(),
        Dropout(rate=0.7),
        Dense(units=CLASSES),
    ),
    scaling=Scaling(mean=0.0, std=1.0),
    optimizer=Adam(beta_1=0.9, beta_2=0.999, epsilon=1e-7),
    initializer="glorot_uniform",
    learning_rate=0.001,
    batch_size=64,
    epochs=1,
    seed=1,
    parameter_count=1_676_266,
    target_accuracy=0.9776,
    reference_accuracy={"mnist": (0.97,), "synthetic": (0.92,)},
)

RECIPES: Final = {recipe.name: recipe for recipe in (LENET, BASIC_CNN)}


def recipe_named(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        BadInput: there is none.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise BadInput(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}") from None
