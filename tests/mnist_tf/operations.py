"""Prints what the walk finds as JSON: ``python -m tests.mnist_tf.operations``, for ``make operations-tf``."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import tensorflow as tf

from jobs.adapter import RunSpec
from jobs.mnist_tf.trainer import TensorFlowTrainer
from jobs.recipes import RECIPES
from tests.mnist_tf.eager_operations import whole_run
from tests.mnist_tf.gpu_kernels import CASES, Case, functions, input_digits, walk

if TYPE_CHECKING:
    from jobs.choices import TrainingProtocol
    from tests.mnist_tf.gpu_kernels import Walk

PROTOCOLS: Final[tuple[TrainingProtocol, ...]] = ("matched", "published")
PRECISIONS: Final = ("fp32", "bf16", "fp64")
"""tf32 has the types of fp32."""
COUNTED: Final = [case for case in CASES if case.execution == "graph" and case.precision in PRECISIONS]
"""The steps whose kernels are counted."""
NO_KERNEL: Final = {"bitcast", "constant", "get-tuple-element", "parameter", "tuple"}
"""Instructions of XLA that start nothing."""


def table() -> dict[str, Any]:
    """Types by operation and precision, and the kernels that a step starts."""
    types: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in CASES:
        if case.precision not in PRECISIONS or case.execution == "eager":
            continue
        walks: dict[str, Walk] = {
            name: walk(function) for name, function in functions(case, case.trainer(input_digits())).items()
        }
        if any(found.missing or found.read_back or found.unplaced for found in walks.values()):
            raise SystemExit(f"{case}: the tests say what is wrong")
        if case.execution == "graph":
            for protocol in PROTOCOLS:
                walks[f"{protocol} run"] = whole_run(replace(case, protocol=protocol))
        if any(found.missing for found in walks.values()):
            raise SystemExit(f"{case}: the tests say what is wrong")
        for found in walks.values():
            for operation in found.kernels:
                types[operation.name][case.precision] |= {
                    one for _, names in operation.types for one in names.split(",")
                }
    return {
        "framework_version": tf.__version__,
        "operations": [
            {"operation": name, "types": {precision: sorted(by[precision]) for precision in PRECISIONS}}
            for name, by in sorted(types.items())
        ],
        "launches": [step_launches(case) for case in COUNTED],
        "xla": [{"recipe": name, "operations": xla_operations(name)} for name in RECIPES],
    }


def step_launches(case: Case) -> dict[str, Any]:
    """The kernels that a training step starts."""
    found = walk(functions(case, case.trainer(input_digits()))["train"])
    return {
        "recipe": case.recipe,
        "precision": case.precision,
        "input": case.input,
        "launches": sum(found.launches.values()),
        "optimizer": optimizer_launches(case),
        "by_operation": found.launches,
    }


def optimizer_launches(case: Case) -> int:
    """Kernels that the optimizer starts in a step."""
    trainer = case.trainer(input_digits())
    variables = trainer._model.trainable_variables
    apply: Any = tf.function(trainer._placed(lambda *gradients: trainer._optimizer.apply(gradients, variables)))
    gradients = [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
    return sum(walk(apply.get_concrete_function(*gradients)).launches.values())


def xla_operations(name: str) -> int:
    """Fusions, products and library calls of the step that XLA makes for this machine's CPU."""
    recipe = RECIPES[name]
    spec = RunSpec.for_recipe(recipe, device="cpu", execution="compiled")
    trainer: Any = TensorFlowTrainer(spec, input_digits())
    indices, count = tf.zeros((recipe.batch_size,), tf.int64), tf.constant(recipe.batch_size, tf.int64)
    text = trainer._run_step.experimental_get_compiler_ir(indices, count)(stage="optimized_hlo")
    entry = re.search(r"^ENTRY .*?^}", text, re.MULTILINE | re.DOTALL)
    assert entry is not None
    names = re.findall(r"^\s+(?:ROOT )?%\S+ = .*? ([a-z][a-z-]*)\(", entry[0], re.MULTILINE)
    return sum(name not in NO_KERNEL for name in names)


if __name__ == "__main__":
    tf.config.experimental.reset_memory_stats = lambda _: None
    print(json.dumps(table()))  # noqa: T201 - the script reads it
