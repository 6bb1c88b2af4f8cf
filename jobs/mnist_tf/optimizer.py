"""The recipe's optimizer: Keras's own under ``published``, the arithmetic of :mod:`jobs.recipes` under ``matched``.

The matched forms take their constants as exact Python numbers: Keras's own classes pass learning rate and betas
through float32 (0.9 becomes 0.8999999762), which a float64 comparison sees within ten steps.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import tensorflow as tf

from jobs.recipes import Sgd

if TYPE_CHECKING:
    from jobs.adapter import RunSpec
    from jobs.recipes import Adam


class _Matched(keras.optimizers.Optimizer):
    """An optimizer that keeps ``slots`` for each variable, the running average of gradients first."""

    slots: ClassVar[tuple[str, ...]]

    def __init__(self, learning_rate: float, recipe: Sgd | Adam) -> None:
        super().__init__(learning_rate=learning_rate)
        self._exact_learning_rate = learning_rate
        self._recipe: Any = recipe

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            super().build(variables)
            self._slots = self.add_optimizer_variables(variables, self.slots)

    @property
    def gradient_averages(self) -> list[Any]:
        return list(self._slots[0])

    def _slots_of(self, variable: Any) -> list[Any]:
        index = self._get_variable_index(variable)
        return [slot[index].value for slot in self._slots]


class MatchedSgd(_Matched):
    """``v = momentum v + g; w -= lr v``, torch's form of momentum."""

    slots = ("velocity",)
    _recipe: Sgd

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ARG002 - float32
        (velocity,) = self._slots_of(variable)
        # One kernel, with the arithmetic above.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=velocity.handle,
            lr=_exact(self._exact_learning_rate, variable),
            grad=gradient,
            momentum=_exact(self._recipe.momentum, variable),
        )


class MatchedAdam(_Matched):
    """The matched form of :class:`jobs.recipes.Adam`; its scalar factor is computed in float64."""

    slots = ("m", "v")
    _recipe: Adam

    @property
    def learning_rate(self) -> tf.Tensor:
        """The scalar factor of this step, in float64. Keras reads it once a step and passes it to each update."""
        t = tf.cast(self.iterations.value + 1, tf.float64)
        decay_1 = tf.pow(tf.constant(self._recipe.beta_1, tf.float64), t)
        decay_2 = tf.pow(tf.constant(self._recipe.beta_2, tf.float64), t)
        return self._exact_learning_rate * tf.sqrt(1 - decay_2) / (1 - decay_1)

    def update_step(self, gradient: Any, variable: Any, learning_rate: tf.Tensor) -> None:
        recipe = self._recipe
        m, v = self._slots_of(variable)
        m.assign_add((gradient - m) * _exact(1 - recipe.beta_1, variable))
        v.assign_add((tf.square(gradient) - v) * _exact(1 - recipe.beta_2, variable))
        step = m * tf.cast(learning_rate, m.dtype) / (tf.sqrt(v) + _exact(recipe.epsilon, variable))
        self.assign_sub(variable, step)


def _exact(number: float, variable: Any) -> tf.Tensor:
    return tf.constant(number, tf.as_dtype(variable.dtype))


def build_optimizer(spec: RunSpec) -> Any:
    recipe, learning_rate = spec.recipe.optimizer, spec.learning_rate
    if spec.protocol == "matched":
        return (MatchedSgd if isinstance(recipe, Sgd) else MatchedAdam)(learning_rate, recipe)
    published = keras.optimizers.SGD if isinstance(recipe, Sgd) else keras.optimizers.Adam
    return published(learning_rate, **asdict(recipe))
