"""What the device can do at best in TensorFlow: the speed of a large matrix product, and of a recipe's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from jobs.mnist_tf.numerics import set_precision, variable_dtype
from jobs.recipes import Convolution

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec
    from jobs.recipes import MatmulLayer

SIDE = {"cpu": 2048, "gpu": 8192}
MIN_S = 0.5


def matmul_flop_per_s(spec: RunSpec) -> float:
    """Floating-point operations a second of a square matrix product in the spec's precision, over half a second."""
    set_precision(spec.precision)
    side = SIDE[spec.device]
    dtype = tf.bfloat16 if spec.precision == "bf16" else variable_dtype(spec.precision)
    with tf.device("/GPU:0" if spec.device == "gpu" else "/CPU:0"):
        left, right = (tf.cast(tf.random.uniform((side, side)), dtype) for _ in range(2))

        def wait(product: tf.Tensor) -> None:
            # One number that depends on the product: reading it waits for the device.
            float(tf.cast(product[0, 0], tf.float32))

        wait(tf.linalg.matmul(left, right))
        products, begun_s = 0, time.perf_counter()
        while time.perf_counter() - begun_s < MIN_S:
            for _ in range(3):
                product = tf.linalg.matmul(left, right)
            wait(product)
            products += 3
        return float(2 * side**3 * products / (time.perf_counter() - begun_s))


def product_runs(product: MatmulLayer, batch: int) -> dict[str, Callable[[int], object]]:
    """``forward``, ``input gradient`` and ``weight gradient`` of a layer on random float32 numbers, on the CPU.

    Each is called with how often to compute it, and returns when that is done.
    """
    layer = product.layer
    x = tf.random.normal((batch, *product.inputs))
    if isinstance(layer, Convolution):
        weights = tf.random.normal((layer.kernel, layer.kernel, product.inputs[-1], layer.filters))
        options: dict[str, Any] = {"strides": [1, 1, 1, 1], "padding": layer.padding.upper()}
        gradient = tf.random.normal(tf.nn.conv2d(x, weights, **options).shape)
        return {
            "forward": _repeated(lambda: tf.nn.conv2d(x, weights, **options)),
            "input gradient": _repeated(
                lambda: tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=x.shape, filter=weights, out_backprop=gradient, **options
                )
            ),
            "weight gradient": _repeated(
                lambda: tf.raw_ops.Conv2DBackpropFilter(
                    input=x, filter_sizes=weights.shape, out_backprop=gradient, **options
                )
            ),
        }
    weights, gradient = tf.random.normal((*product.inputs, layer.units)), tf.random.normal((batch, layer.units))
    return {
        "forward": _repeated(lambda: tf.matmul(x, weights)),
        "input gradient": _repeated(lambda: tf.matmul(gradient, weights, transpose_b=True)),
        "weight gradient": _repeated(lambda: tf.matmul(x, gradient, transpose_a=True)),
    }


def _repeated(compute: Callable[[], Any]) -> Callable[[int], object]:
    @tf.function
    def repeat(times: Any) -> Any:
        total = tf.constant(0.0)
        for _ in tf.range(times):
            # One at a time, and none left out because nobody reads it.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            total += tf.reshape(compute(), [-1])[0]
        return total

    return lambda times: repeat(tf.constant(times)).numpy()
