"""The recipe's optimizer: Keras's own under ``published``, one written-down arithmetic under ``matched``.

The matched forms take their constants as exact Python numbers: Keras's own classes pass learning rate and betas
through float32 (0.9 becomes 0.8999999762), which a float64 comparison sees within ten steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from jobs.recipes import Sgd

if TYPE_CHECKING:
    from jobs.adapter import RunSpec


class MatchedSgd(keras.optimizers.Optimizer):
    """``v = momentum v + g; w -= lr v``, torch's form of momentum."""

    def __init__(self, *, exact_learning_rate: float, momentum: float) -> None:
        super().__init__(learning_rate=exact_learning_rate, name="matched_sgd")
        self._exact_learning_rate = exact_learning_rate
        self._momentum = momentum

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            super().build(variables)
            (self._velocities,) = self.add_optimizer_variables(variables, ["velocity"])

    @property
    def gradient_averages(self) -> list[Any]:
        return list(self._velocities)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ARG002 - float32
        velocity = self._velocities[self._get_variable_index(variable)].value
        velocity.assign(_exact(self._momentum, variable) * velocity + gradient)
        self.assign_sub(variable, _exact(self._exact_learning_rate, variable) * velocity)


class MatchedAdam(keras.optimizers.Optimizer):
    """Adam in the form of Kingma and Ba 2015, section 2, last paragraph, which is also Keras's.

    At step t, per weight: ``m += (1 - beta_1) (g - m)``, ``v += (1 - beta_2) (g² - v)``,
    ``w -= lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)``: epsilon stands outside the
    bias-corrected root, unlike in ``torch.optim.Adam``. The scalar factor is computed in float64.
    """

    def __init__(self, *, exact_learning_rate: float, beta_1: float, beta_2: float, epsilon: float) -> None:
        super().__init__(learning_rate=exact_learning_rate, name="matched_adam")
        self._exact_learning_rate = exact_learning_rate
        self._beta_1 = beta_1
        self._beta_2 = beta_2
        self._epsilon = epsilon

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            super().build(variables)
            self._m, self._v = self.add_optimizer_variables(variables, ["m", "v"])

    @property
    def gradient_averages(self) -> list[Any]:
        return list(self._m)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ARG002 - float32
        index = self._get_variable_index(variable)
        m, v = self._m[index].value, self._v[index].value
        m.assign_add((gradient - m) * _exact(1 - self._beta_1, variable))
        v.assign_add((tf.square(gradient) - v) * _exact(1 - self._beta_2, variable))
        step = m * tf.cast(self._factor(), m.dtype) / (tf.sqrt(v) + _exact(self._epsilon, variable))
        self.assign_sub(variable, step)

    def _factor(self) -> Any:
        t = tf.cast(self.iterations.value + 1, tf.float64)
        decay_1 = tf.pow(tf.constant(self._beta_1, tf.float64), t)
        decay_2 = tf.pow(tf.constant(self._beta_2, tf.float64), t)
        return self._exact_learning_rate * tf.sqrt(1 - decay_2) / (1 - decay_1)


def _exact(number: float, variable: Any) -> Any:
    return tf.constant(number, tf.as_dtype(variable.dtype))


def build_optimizer(spec: RunSpec) -> Any:
    recipe = spec.recipe.optimizer
    if isinstance(recipe, Sgd):
        if spec.protocol == "matched":
            return MatchedSgd(exact_learning_rate=spec.learning_rate, momentum=recipe.momentum)
        return keras.optimizers.SGD(spec.learning_rate, momentum=recipe.momentum)
    if spec.protocol == "matched":
        return MatchedAdam(
            exact_learning_rate=spec.learning_rate,
            beta_1=recipe.beta_1,
            beta_2=recipe.beta_2,
            epsilon=recipe.epsilon,
        )
    return keras.optimizers.Adam(spec.learning_rate, beta_1=recipe.beta_1, beta_2=recipe.beta_2, epsilon=recipe.epsilon)
