"""Records what a trainer does outside its traced functions: the set-up, the state, and what starts the functions.

It runs on the CPU; each operation is noted with the device that the code asks for. The functions that are called are
walked as in :mod:`tests.mnist_tf.gpu_kernels`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.eager import context
from tensorflow.python.framework import op_callbacks, op_def_registry

from jobs import adapter_common
from jobs.mnist_tf.peak_flops import matmul_flop_per_s
from jobs.recipes import RECIPES
from jobs.training.seeding import epoch_order, initial_weights
from tests.mnist_tf.gpu_kernels import (
    GPU,
    Operation,
    Walk,
    input_digits,
    kernel_of,
    register_xla_kernels,
    types_of,
    walk_function,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mnist_tf.gpu_kernels import Case


class EagerLog(Walk):
    """What ran eagerly; operations that the code places on the host are left out."""

    def note(
        self, kind: str | bytes, inputs: Any, attributes: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> None:
        """TensorFlow calls this after each operation, and for each that it adds to a graph; those are walked later."""
        del inputs, outputs, op_name
        name, device = tf.compat.as_str(kind), context.context().device_name
        if graph is not None or device.endswith("CPU:0"):
            return
        if context.context().has_function(name):
            # At once, since a function may be gone when its caller returns.
            walk_function(name, self, xla=False)
            return
        given, node = dict(zip(attributes[::2], attributes[1::2], strict=True)), NodeDef(op=name)
        for attribute in op_def_registry.get(name).attr:  # type: ignore[no-untyped-call]
            if attribute.type == "type":
                node.attr[attribute.name].type = tf.as_dtype(given[attribute.name]).as_datatype_enum
            elif attribute.type == "list(type)":
                types = [tf.as_dtype(one).as_datatype_enum for one in given[attribute.name]]
                node.attr[attribute.name].list.type.extend(types)
        operation, kernel = Operation(name, types_of(node)), kernel_of(node, GPU)
        if kernel is None:
            # Where no device is asked for, TensorFlow takes the CPU without a word.
            (self.missing if device.endswith("GPU:0") else self.unplaced).add(operation)
        else:
            self.kernels[operation] = kernel.device_type


@contextmanager
def recorded() -> Iterator[EagerLog]:
    """What runs inside, with the functions that are called."""
    log = EagerLog()
    register_xla_kernels()
    op_callbacks.add_op_callback(log.note)  # type: ignore[no-untyped-call]
    try:
        yield log
    finally:
        op_callbacks.remove_op_callback(log.note)  # type: ignore[no-untyped-call]


def whole_run(case: Case) -> EagerLog:
    """All that a run does with its trainer, from its set-up to the logits, and the peak of the device."""
    data = input_digits()
    with pytest.MonkeyPatch.context() as patch, recorded() as log:
        # Without a GPU the products are computed on the CPU: small ones, and once.
        patch.setitem(adapter_common.MATRIX_SIDE, "gpu", 8)
        patch.setattr(adapter_common, "PEAK_S", 0.0)
        trainer = case.trainer(data)
        matmul_flop_per_s(trainer._spec)
        trainer.load_weights(initial_weights(RECIPES[case.recipe], 1))
        order = epoch_order(1, 1, len(data.train_images)) if case.protocol == "matched" else None
        trainer.train_epoch(order, lambda _: None, epoch=1)
        trainer.loss_total()
        trainer.load_state(trainer.state())
        trainer.weights()
        if case.protocol == "matched":
            trainer.gradient_average()
        trainer.evaluate(data.test_images, data.test_labels)
        trainer.logits(data.test_images)
    return log
