"""Sets the precision in TensorFlow, where TF32 is on by default, and reads it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

# TensorFlow has a public function to set op determinism, but none to read it.
from tensorflow.python.framework.config import is_op_determinism_enabled

from jobs.report.schema import Numerics

if TYPE_CHECKING:
    from jobs.adapter import DeviceKind, Precision

POLICY = {"fp32": "float32", "tf32": "float32", "bf16": "mixed_bfloat16", "fp64": "float64"}


def device_for(device: DeviceKind) -> str:
    return "/GPU:0" if device == "gpu" else "/CPU:0"


def set_precision(precision: Precision) -> None:
    """Allow TF32 only if it was requested, in matrix products and in convolutions."""
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    # Keras' metrics, such as the mean loss of fit, take this type: float32 would round a float64 loss.
    keras.config.set_floatx(variable_dtype(precision).name)


def variable_dtype(precision: Precision) -> tf.DType:
    return tf.as_dtype(keras.DTypePolicy(POLICY[precision]).variable_dtype)


def effective_numerics(precision: Precision) -> Numerics:
    policy = keras.DTypePolicy(POLICY[precision])
    tf32 = bool(tf.config.experimental.tensor_float_32_execution_enabled())
    return Numerics(
        compute_dtype=policy.compute_dtype,
        variable_dtype=policy.variable_dtype,
        tf32_matmul=tf32,
        tf32_convolution=tf32,
        deterministic=bool(is_op_determinism_enabled()),  # type: ignore[no-untyped-call]
        # 0: nothing was set, and TensorFlow does not say what it chose.
        intra_op_threads=tf.config.threading.get_intra_op_parallelism_threads() or None,
        inter_op_threads=tf.config.threading.get_inter_op_parallelism_threads() or None,
        thread_wait_policy=None,
        settings={
            "tf.config.experimental.tensor_float_32_execution_enabled": str(tf32),
            "keras.DTypePolicy": policy.name,
        },
    )
