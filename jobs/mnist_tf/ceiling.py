"""What the device can do at best in TensorFlow: the speed of a large matrix product."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import tensorflow as tf

from jobs.mnist_tf.numerics import set_precision, variable_dtype

if TYPE_CHECKING:
    from jobs.harness.trainer import RunSpec

SIDE = {"cpu": 2048, "gpu": 8192}
LEAST_S = 0.5


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
        while time.perf_counter() - begun_s < LEAST_S:
            for _ in range(3):
                product = tf.linalg.matmul(left, right)
            wait(product)
            products += 3
        return float(2 * side**3 * products / (time.perf_counter() - begun_s))
