"""The device's peak speed in TensorFlow: of a large matrix product, and of a recipe's own products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from jobs.adapter_common import MATRIX_SIDE, peak_flop_per_s
from jobs.mnist_tf.numerics import device_for, set_precision, variable_dtype
from jobs.recipes import Convolution

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.adapter import RunSpec
    from jobs.recipes import MatmulLayer


def matmul_flop_per_s(spec: RunSpec) -> float:
    """See :meth:`jobs.adapter.Framework.matmul_flop_per_s`."""
    set_precision(spec.precision)
    dtype = tf.bfloat16 if spec.precision == "bf16" else variable_dtype(spec.precision)
    shape = (MATRIX_SIDE[spec.device],) * 2
    device = device_for(spec.device)
    with tf.device(device):
        # Stateless, so that the measurement does not change training's random numbers.
        left, right = (tf.cast(tf.random.stateless_uniform(shape, (0, seed)), dtype) for seed in range(2))
        return peak_flop_per_s(_repeated(lambda: tf.linalg.matmul(left, right), device), spec.device)


def product_runs(product: MatmulLayer, batch: int) -> dict[str, Callable[[int], object]]:
    """``forward``, ``input gradient`` and ``weight gradient`` of a layer on random float32 numbers, on the CPU.

    Each takes the number of repetitions and returns when they are done.
    """
    layer = product.layer
    x = tf.random.normal((batch, *product.inputs))
    if isinstance(layer, Convolution):
        weights = tf.random.normal((layer.kernel, layer.kernel, product.inputs[-1], layer.filters))
        options: dict[str, Any] = {"strides": [1, 1, 1, 1], "padding": layer.padding.upper()}
        gradient = tf.random.normal(tf.nn.conv2d(x, weights, **options).shape)
        of_input = {"input_sizes": x.shape, "filter": weights, "out_backprop": gradient, **options}
        of_weights = {"input": x, "filter_sizes": weights.shape, "out_backprop": gradient, **options}
        return {
            "forward": _repeated(lambda: tf.nn.conv2d(x, weights, **options)),
            "input gradient": _repeated(lambda: tf.raw_ops.Conv2DBackpropInput(**of_input)),
            "weight gradient": _repeated(lambda: tf.raw_ops.Conv2DBackpropFilter(**of_weights)),
        }
    weights, gradient = tf.random.normal((*product.inputs, layer.units)), tf.random.normal((batch, layer.units))
    return {
        "forward": _repeated(lambda: tf.matmul(x, weights)),
        "input gradient": _repeated(lambda: tf.matmul(gradient, weights, transpose_b=True)),
        "weight gradient": _repeated(lambda: tf.matmul(x, gradient, transpose_a=True)),
    }


def _repeated(compute: Callable[[], tf.Tensor], device: str = "/CPU:0") -> Callable[[int], object]:
    """``compute`` as often as asked for, each operation on ``device`` by name."""

    def repeat(times: tf.Tensor) -> tf.Tensor:
        with tf.device(device):
            total, done = tf.constant(0.0), tf.constant(0)
            # Not over a range: TensorFlow would compute its length on the device and read it back.
            while done < times:
                # One at a time; the sum keeps the compiler from removing unused results.
                tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                total += tf.cast(tf.reshape(compute(), [-1])[0], tf.float32)
                done += 1
            return total

    graph: Any = tf.function(repeat)
    return lambda times: graph(tf.constant(times)).numpy()
