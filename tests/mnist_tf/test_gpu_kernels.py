"""Each operation of each step has a GPU kernel in the installed TensorFlow, and no step reads the device back."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf

from jobs.mnist_tf import trainer as trainer_module
from jobs.recipes import RECIPES
from tests.mnist_tf import operations
from tests.mnist_tf.eager_operations import recorded, whole_run
from tests.mnist_tf.gpu_kernels import CASES, INPUTS, PRECISIONS, RANK_CASES, Case, functions, input_digits, walk
from tests.support.programs import ROOT, TORTURE

if TYPE_CHECKING:
    from jobs.choices import TrainingProtocol
    from tests.mnist_tf.gpu_kernels import Walk

pytestmark = pytest.mark.skipif(not tf.test.is_built_with_cuda(), reason="this TensorFlow has no GPU kernels")

COPIED = {
    "Const(dtype=int32) -> Cast(DstT=int64, SrcT=int32).x": "Keras counts steps by 1: the graph optimizer folds it",
    "Pack(T=int32) -> Prod(T=int32, Tidx=int32).input": "Keras's loss divides by the batch's size, known on the host",
    "StridedSlice(Index=int32, T=int32) -> Cast(DstT=float64, SrcT=int32).x": "Keras's metric weighs by this size",
}
"""The values that a step copies to the device. The last two are of the streamed path, whose batches are copied too."""
KERAS_DROPOUT = "Keras's own dropout, which published keeps, computes its random numbers' seed on the host"
SEED = "StatelessRandomGetKeyCounter(Tseed=int32)"
READ_BACK_BY_KERAS = {f"Cast(DstT=int32, SrcT=int64) -> {SEED}.seed": KERAS_DROPOUT}
COPIED_BY_KERAS = {
    f"{SEED} -> StatelessRandomUniformV2(Tshape=int32, dtype={dtype}).{name}": KERAS_DROPOUT
    for dtype in ("float32", "float64", "bfloat16")
    for name in ("key", "counter")
}
PIPELINE = {"DatasetCardinality", "IteratorGetNext", "OptionalFromValue", "StatefulPartitionedCall"}
"""What Keras's fit does on the host: it takes a batch from tf.data and calls the step, which is on the device."""
# Eager steps are the same functions as graph's, and tf32 has the types of fp32: both are walked by make torture.
WALKED = [case for case in CASES if TORTURE or (case.precision != "tf32" and case.execution != "eager")]
# Of the ranks' steps, basic-cnn's contain lenet's operations.
WALKED += [
    case for case in RANK_CASES if TORTURE or (case.recipe == "basic-cnn" and case.precision in {"fp32", "fp64"})
]


@pytest.fixture(autouse=True)
def no_memory_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's memory statistics need the GPU. Determinism would stay on for the tests after these."""
    monkeypatch.setattr(tf.config.experimental, "reset_memory_stats", lambda _: None)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)


@pytest.fixture(scope="module")
def lenet() -> Case:
    return Case(recipe="lenet", precision="fp32", execution="graph", input="resident")


def _walk_training(case: Case) -> Walk:
    return walk(functions(case, case.trainer(input_digits()))["train"])


PROTOCOLS: tuple[TrainingProtocol, ...] = ("matched", "published")
RUN = [
    Case(recipe=recipe, precision=precision, execution="graph", input=path, protocol=protocol)
    for recipe, precision, path, protocol in product(RECIPES, PRECISIONS, INPUTS, PROTOCOLS)
    # The functions of the matched protocol are walked below; the rest of a run depends little on the recipe.
    if TORTURE or (precision == "fp32" and (protocol == "published" or recipe == "lenet"))
]


@pytest.mark.parametrize("case", RUN, ids=str)
def test_whole_run_has_gpu_kernels_and_leaves_no_operation_to_chance(case: Case) -> None:
    """Set-up, training, state, evaluation, the trace's logits and the measurement of the device's peak."""
    found = whole_run(case)
    assert not found.missing, f"no GPU kernel for {sorted(map(str, found.missing))}"
    unplaced = {operation for operation in found.unplaced if case.input == "resident" or operation.name not in PIPELINE}
    assert not unplaced, f"on no device: {sorted(map(str, unplaced))}"
    by_keras = case.protocol == "published"
    assert found.read_back <= (READ_BACK_BY_KERAS.keys() if by_keras else set())
    assert found.copied <= COPIED.keys() | (COPIED_BY_KERAS.keys() if by_keras else set())
    # An empty record would find nothing.
    assert {"AssignVariableOp", "ReadVariableOp", "StatelessRandomUniformV2", "Conv2DBackpropFilter", "MatMul"} <= {
        operation.name for operation in found.kernels
    }


def test_record_names_an_eager_operation_without_a_gpu_kernel() -> None:
    with recorded() as found, tf.device("/GPU:0"):
        tf.gather(tf.constant([1, 2], tf.uint8), [0])
    assert [operation.name for operation in found.missing] == ["GatherV2"]


def test_record_names_what_runs_on_the_cpu_unasked() -> None:
    experimental: Any = tf.random.experimental  # type: ignore[attr-defined]
    with recorded() as found:
        experimental.stateless_shuffle(tf.range(3), (1, 0))
    assert [operation.name for operation in found.unplaced] == ["StatelessShuffle"]
    with recorded() as found, tf.device("/CPU:0"):
        experimental.stateless_shuffle(tf.range(3), (1, 0))
    assert not found.unplaced | found.missing


@pytest.mark.parametrize("case", WALKED, ids=str)
def test_functions_have_gpu_kernels_and_wait_for_nothing(case: Case) -> None:
    for name, function in functions(case, case.trainer(input_digits())).items():
        found = walk(function)
        assert not found.missing, f"{name}: no GPU kernel for {sorted(map(str, found.missing))}"
        assert not found.unplaced, f"{name}: on no device: {sorted(map(str, found.unplaced))}"
        assert not found.read_back, f"{name}: read back to the host: {sorted(found.read_back)}"
        assert found.copied <= COPIED.keys(), f"{name}: copied to the device: {sorted(found.copied)}"
        # An empty walk would find nothing.
        assert len(found.kernels) > 15
        assert any(operation.name == "Conv2D" for operation in found.kernels)


def test_kernels_that_a_step_starts_are_those_of_the_page() -> None:
    stored = json.loads((ROOT / "docs/results/operations_tensorflow.json").read_text(encoding="utf-8"))
    # A recipe that is new is on the page after its operations were counted.
    measured = {step["recipe"] for step in stored["launches"]}
    counted = [operations.step_launches(case) for case in operations.COUNTED if case.recipe in measured]
    assert (tf.__version__, counted) == (stored["framework_version"], stored["launches"]), "run make operations-tf"


def test_walk_with_bytes_in_a_tensor_names_the_gather(lenet: Case) -> None:
    trainer: Any = lenet.trainer(input_digits())
    pixels = tf.constant(input_digits().train_images)
    trainer._images = type("Tensor", (), {"sparse_read": lambda _, indices: tf.gather(pixels, indices)})()
    missing = walk(functions(lenet, trainer)["train"]).missing
    assert [operation.name for operation in missing] == ["GatherV2"]
    assert "uint8" in str(missing)


def test_walk_with_sparse_loss_in_float64_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def sparse(logits: Any, labels: Any) -> Any:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

    monkeypatch.setattr(trainer_module, "_losses", sparse)
    missing = _walk_training(Case(recipe="lenet", precision="fp64", execution="graph", input="resident")).missing
    assert [operation.name for operation in missing] == ["SparseSoftmaxCrossEntropyWithLogits"]


def test_walk_with_keras_dropout_finds_its_seed_read_back() -> None:
    published = Case(recipe="basic-cnn", precision="fp32", execution="graph", input="resident", protocol="published")
    read_back = _walk_training(published).read_back
    assert read_back
    assert all("StatelessRandomGetKeyCounter" in transfer for transfer in read_back)


def test_walk_with_an_operation_on_no_device_names_it(lenet: Case) -> None:
    trainer: Any = lenet.trainer(input_digits())
    pixel_losses = trainer._pixel_losses

    def faulty(pixels: Any, labels: Any) -> Any:
        with tf.device(None):
            return tf.sin(pixel_losses(pixels, labels))

    trainer._pixel_losses = faulty
    unplaced = {operation.name for operation in walk(functions(lenet, trainer)["train"]).unplaced}
    assert "Sin" in unplaced


def test_walk_with_a_count_in_int32_finds_it_read_back() -> None:
    def count(logits: Any) -> Any:
        with tf.device("/GPU:0"):
            return tf.reduce_sum(tf.cast(logits > 0, tf.int32))

    traced: Any = tf.function(count)
    found = walk(traced.get_concrete_function(tf.TensorSpec((64, 10), tf.float32)))
    assert any("Sum" in transfer for transfer in found.read_back)


def test_placed_function_without_soft_placement_is_an_error_not_a_cpu_run(lenet: Case) -> None:
    placed: Any = lenet.trainer(input_digits())._placed(tf.sin)
    tf.function(placed)(tf.constant(1.0))
    tf.config.set_soft_device_placement(False)
    try:
        with pytest.raises(tf.errors.InvalidArgumentError, match="GPU:0"):
            tf.function(placed)(tf.constant(1.0))
    finally:
        tf.config.set_soft_device_placement(True)


def test_keras_step_of_fit_is_placed_on_the_device() -> None:
    case = Case(recipe="lenet", precision="fp32", execution="graph", input="streamed")
    found = _walk_training(case)
    assert any(operation.name == "Conv2DBackpropFilter" for operation in found.kernels)
    assert not found.unplaced
