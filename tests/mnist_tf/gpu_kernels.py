"""Walks the functions that a trainer runs on a GPU, and looks up each operation in TensorFlow's kernel registry.

The registry answers without a GPU. Functions are traced with each operation placed on ``/GPU:0``; nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import kernels
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from jobs.adapter import RunSpec
from jobs.datasets import ImageDataset
from jobs.mnist_tf.rank_trainer import RankTrainer
from jobs.mnist_tf.trainer import TensorFlowTrainer
from jobs.ranks.group import RankGroup
from jobs.recipes import RECIPES

if TYPE_CHECKING:
    from jobs.choices import Execution, InputPath, Precision, Reduction, TrainingProtocol

GPU: Final = ("GPU", "DEFAULT")
"""Device types whose kernels run on a GPU, in the order in which TensorFlow looks for them."""
XLA: Final = ("XLA_GPU_JIT",)
FORWARDED: Final = {"Identity", "IdentityN", "PreventGradient", "StopGradient"}
"""Removed by TensorFlow's graph optimizer; their output is where their input is."""
PLACED_WITH_INPUT: Final = FORWARDED | {"NoOp", "ReadVariableOp"}
"""A variable is read on its own device, whatever the scope says."""
CALLS: Final = {"While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall", "Placeholder"}
"""int32 values that enter and leave functions are in host memory, all others on the device."""
NO_LAUNCH: Final = FORWARDED | CALLS | {
    "AssignVariableOp", "Bitcast", "BroadcastGradientArgs", "Const", "ExpandDims", "NoOp", "ReadVariableOp", "Reshape",
    "Squeeze", "VarHandleOp",
}  # fmt: skip
"""Operations that start no kernel: they pass on memory that is there, or a constant that stays on the device."""


@dataclass(frozen=True)
class Operation:
    """An operation of a step with its types, such as ``(("T", "float32"),)``."""

    name: str
    types: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={dtype}' for name, dtype in self.types)})"


@dataclass
class Walk:
    """What one traced function contains."""

    kernels: dict[Operation, str] = field(default_factory=dict)
    """Device type of each operation's kernel."""
    missing: set[Operation] = field(default_factory=set)
    unplaced: set[Operation] = field(default_factory=set)
    """Operations without a device: without a kernel they would run on the CPU, and nothing would say so."""
    read_back: set[str] = field(default_factory=set)
    """``from -> to`` of each value that is computed on the device and read in host memory: the host waits for it."""
    copied: set[str] = field(default_factory=set)
    """``from -> to`` of each value that is copied from host memory to the device."""
    launches: dict[str, int] = field(default_factory=dict)
    """Kernels that start on the device, by operation. A loop's body counts once."""
    walked: set[tuple[str, bool]] = field(default_factory=set)
    """Functions that were looked at, each with whether XLA compiles it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    recipe: str
    precision: Precision
    execution: Execution
    input: InputPath
    protocol: TrainingProtocol = "matched"
    reduction: Reduction | None = None

    def __str__(self) -> str:
        return "-".join(str(value) for value in vars(self).values() if value is not None)

    def trainer(self, data: ImageDataset) -> TensorFlowTrainer:
        """A trainer whose functions name ``/GPU:0``. Without a GPU its variables are in host memory."""
        spec = RunSpec.for_recipe(
            RECIPES[self.recipe], device="gpu", execution=self.execution, precision=self.precision
        )
        spec = spec.replace(input=self.input, protocol=self.protocol, reduction=self.reduction)
        return TensorFlowTrainer(spec, data) if self.reduction is None else RankTrainer(spec, data, RankGroup())


PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "tf32", "bf16", "fp64")
EXECUTIONS: Final[tuple[Execution, ...]] = ("eager", "graph", "compiled")
INPUTS: Final[tuple[InputPath, ...]] = ("resident", "streamed")
REDUCTIONS: Final[tuple[Reduction, ...]] = ("exact", "fast")
CASES: Final = [
    Case(recipe=recipe, precision=precision, execution=execution, input=path)
    for recipe, precision, execution, path in product(RECIPES, PRECISIONS, EXECUTIONS, INPUTS)
]
RANK_CASES: Final = [
    Case(recipe=recipe, precision=precision, execution="graph", input="resident", reduction=reduction)
    for recipe, precision, reduction in product(RECIPES, PRECISIONS, REDUCTIONS)
]
"""The steps of ranks, without the collective: a strategy on GPUs needs GPUs."""


def functions(case: Case, trainer: TensorFlowTrainer) -> dict[str, Any]:
    """The concrete functions of training, evaluation and the trace's logits."""
    images, scalar = tf.TensorSpec((None, 28, 28), tf.uint8), tf.TensorSpec((), tf.int32)
    labels = tf.TensorSpec((None,), tf.int64)
    compiled = case.execution == "compiled"
    if case.input == "resident":
        # Eagerly the same operations run one by one.
        steps = tf.function(trainer._run_steps) if case.execution == "eager" else trainer._run_steps
        # Of one step's indices: by shards, or whole.
        rows = trainer._positions.shape
        order = tf.TensorSpec((None, *rows), tf.int64)
        train = steps.get_concrete_function(order, labels, scalar, scalar)
    else:
        step: Any = tf.function(trainer._model.train_step, jit_compile=compiled)
        batch = tf.TensorSpec((None, 28, 28, 1), trainer._dtype), tf.TensorSpec((None,), tf.uint8)
        train = step.get_concrete_function(batch)
    evaluate: Any = tf.function(trainer._pixel_sums) if case.execution == "eager" else trainer._pixel_sums
    logits: Any = tf.function(trainer._placed(lambda pixels: trainer._pixel_logits(pixels, training=False)))
    return {
        "train": train,
        "evaluate": evaluate.get_concrete_function(images, labels, scalar, scalar),
        "trace": logits.get_concrete_function(images),
    }


def walk(concrete: Any) -> Walk:
    """Look up the operations of a traced function and of all functions that it calls."""
    found = Walk()
    walk_function(concrete.name, found, xla=False)
    return found


def walk_function(name: str, found: Walk, *, xla: bool) -> None:
    """Add a function that TensorFlow knows by this name, and all that it calls; ``xla``: its caller is compiled."""
    definition = context.context().get_function_def(name)
    xla |= definition.attr["_XlaMustCompile"].b
    if (name, xla) in found.walked:
        return
    found.walked.add((name, xla))
    _walk_graph(function_def_to_graph(definition), found, xla=xla)  # type: ignore[no-untyped-call]
    for node in definition.node_def:
        is_compiled = xla or bool(node.attr["_XlaMustCompile"].b)
        for attribute in node.attr.values():
            if attribute.func.name:
                walk_function(attribute.func.name, found, xla=is_compiled)


def _walk_graph(graph: Any, found: Walk, *, xla: bool) -> None:
    for op in graph.get_operations():
        operation = Operation(op.type, types_of(op.node_def))
        kernel = None if op.type == "Placeholder" else kernel_of(op.node_def, XLA if xla else GPU)
        if op.type != "Placeholder":
            if kernel is None:
                found.missing.add(operation)
            else:
                found.kernels[operation] = kernel.device_type
            if not xla and not op.device.endswith("GPU:0") and op.type not in PLACED_WITH_INPUT:
                found.unplaced.add(operation)
        if not xla:
            _find_transfers(op, kernel, found)
            if op.type not in NO_LAUNCH and not (op.outputs and all(map(is_on_host, op.outputs))):
                found.launches[op.type] = found.launches.get(op.type, 0) + 1


def types_of(node: Any) -> tuple[tuple[str, str], ...]:
    """The attributes that are types. Those that begin with an underscore are the tracer's notes."""
    return tuple(
        (name, ",".join(sorted({str(tf.as_dtype(number).name) for number in numbers})))
        for name, numbers in _type_numbers(node)
        if not name.startswith("_")
    )


def _type_numbers(node: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    found = {}
    for name, value in node.attr.items():
        if value.WhichOneof("value") == "type":
            found[name] = (value.type,)
        elif value.list.type:
            found[name] = tuple(value.list.type)
    return tuple(sorted(found.items()))


@cache
def _registered(name: str) -> list[Any]:
    register_xla_kernels()
    return list(kernels.get_registered_kernels_for_op(name).kernel)  # type: ignore[no-untyped-call]


@cache
def register_xla_kernels() -> None:
    """TensorFlow enters them when it first compiles a function."""
    compiled: Any = tf.function(lambda x: x + 1, jit_compile=True)
    compiled(tf.constant(1.0))


def kernel_of(node: Any, devices: tuple[str, ...]) -> Any | None:
    """The kernel that TensorFlow would choose for the node on the first of ``devices`` that has one."""
    return _kernel(node.op, _type_numbers(node), devices)


@cache
def _kernel(name: str, types: tuple[tuple[str, tuple[int, ...]], ...], devices: tuple[str, ...]) -> Any | None:
    given = dict(types)
    for device in devices:
        fitting = [
            kernel
            for kernel in _registered(name)
            if kernel.device_type == device
            and not kernel.label
            and all(set(given[c.name]) <= set(c.allowed_values.list.type) for c in kernel.constraint)
        ]
        if fitting:
            return max(fitting, key=lambda kernel: kernel.priority)
    return None


def is_on_host(tensor: Any) -> bool:
    """Whether an operation on a GPU leaves this output in host memory. Handles of variables always are there."""
    op = tensor.op
    if tensor.dtype == tf.resource:
        return True
    if op.type in FORWARDED:
        return is_on_host(op.inputs[tensor.value_index])
    if op.type in CALLS:
        return bool(tensor.dtype == tf.int32)
    kernel = kernel_of(op.node_def, GPU)
    names = _argument_names(op, op.op_def.output_arg)
    return kernel is not None and names[tensor.value_index] in kernel.host_memory_arg


def _find_transfers(op: Any, kernel: Any | None, found: Walk) -> None:
    if op.type in FORWARDED or kernel is None:
        return
    for tensor, name in zip(op.inputs, _argument_names(op, op.op_def.input_arg), strict=True):
        if tensor.dtype == tf.resource:
            continue
        wanted_on_host = tensor.dtype == tf.int32 if op.type in CALLS else name in kernel.host_memory_arg
        if wanted_on_host != is_on_host(tensor):
            kind = found.read_back if wanted_on_host else found.copied
            kind.add(f"{_described(tensor.op)} -> {_described(op)}.{name}")


def _described(op: Any) -> str:
    return str(Operation(op.type, types_of(op.node_def)))


def _argument_names(op: Any, arguments: Any) -> list[str]:
    """The name of each input or output; one argument may hold several."""
    names: list[str] = []
    for argument in arguments:
        count = 1
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        names += [argument.name] * count
    return names


def input_digits() -> ImageDataset:
    """A few images: nothing is run."""
    images, labels = np.zeros((128, 28, 28), np.uint8), np.zeros(128, np.uint8)
    return ImageDataset(
        name="zeros", sha256="", train_images=images, train_labels=labels, test_images=images, test_labels=labels,
        location="", files=(),
    )  # fmt: skip
