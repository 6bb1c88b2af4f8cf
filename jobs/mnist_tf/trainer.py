"""Training and evaluation in TensorFlow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np
import tensorflow as tf

from jobs.adapter_common import batch_sizes, evaluate_in_batches
from jobs.mnist_tf.input import stream
from jobs.mnist_tf.model import build_model, scale, to_canonical, write_weights
from jobs.mnist_tf.numerics import device_for, effective_numerics, set_precision, variable_dtype
from jobs.mnist_tf.optimizer import build_optimizer
from jobs.mnist_tf.state import read_state, state_by_name, write_state
from jobs.recipes import CLASSES
from jobs.training.seeding import batches, shuffle_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from jobs.adapter import Evaluation, RunSpec, StepTimes
    from jobs.datasets import ImageDataset
    from jobs.report.schema import Numerics

MAX_CALL_S: Final = 0.25
MAX_STEPS_A_CALL: Final = 256


class TensorFlowTrainer:
    """See :class:`jobs.adapter.Trainer`."""

    def __init__(self, spec: RunSpec, data: ImageDataset) -> None:
        self._spec = spec
        set_precision(spec.precision)
        keras.utils.set_random_seed(spec.seed)
        self._dtype = variable_dtype(spec.precision)
        self._device = device_for(spec.device)
        self._data = data
        if spec.device == "gpu":
            tf.config.experimental.reset_memory_stats("GPU:0")
        with tf.device(self._device):
            dropout_seed = spec.seed if spec.protocol == "matched" else None
            self._model = build_model(spec.recipe, spec.precision, dropout_seed)
            self._optimizer = build_optimizer(spec)
            self._optimizer.build(self._model.trainable_variables)
            self._loss_total = tf.Variable(tf.constant(0.0, tf.float64))
            if spec.input == "streamed":
                self._compile_for_fit()
            else:
                # A variable: TensorFlow gathers bytes on a GPU only from variables.
                self._images = tf.Variable(tf.constant(data.train_images), trainable=False)
                # int64, since TensorFlow keeps int32 tensors in host memory also on a GPU.
                self._labels = tf.constant(data.train_labels, dtype=tf.int64)
            self._positions = tf.range(spec.batch_size, dtype=tf.int64)
        self._sizes_compiled = False
        self._evaluated: tuple[NDArray[np.uint8], NDArray[np.uint8], tf.Tensor, tf.Tensor] | None = None
        compiled, eager = spec.execution == "compiled", spec.execution == "eager"
        self._run_step = tf.function(self._masked_step, jit_compile=True) if compiled else self._masked_step
        run_steps, pixel_sums = self._placed(self._masked_steps), self._placed(self._loss_and_correct)
        self._run_steps: Any = run_steps if eager else tf.function(run_steps)
        self._pixel_sums: Any = pixel_sums if eager else tf.function(pixel_sums)

    def _placed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with each operation on the device by name: one without a kernel there is then an error."""

        def on_device(*arguments: Any) -> Any:
            with tf.device(self._device):
                return function(*arguments)

        return on_device

    def _compile_for_fit(self) -> None:
        # By default Keras computes and sums the loss in float32, whatever the model's type is.
        loss = _CrossEntropy(dtype=self._dtype.name)
        floatx = keras.config.floatx()
        keras.config.set_floatx("float64")
        try:
            eager, compiled = self._spec.execution == "eager", self._spec.execution == "compiled"
            self._model.compile(optimizer=self._optimizer, loss=loss, run_eagerly=eager, jit_compile=compiled)
            self._model.train_step = self._placed(self._model.train_step)
        finally:
            keras.config.set_floatx(floatx)

    @property
    def parameter_count(self) -> int:
        return sum(int(np.prod(variable.shape)) for variable in self._model.trainable_variables)

    @property
    def numerics(self) -> Numerics:
        return effective_numerics(self._spec.precision)

    def synchronize(self) -> None:
        if self._spec.device == "gpu":
            tf.test.experimental.sync_devices()

    def memory_peak_bytes(self) -> int | None:
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) if self._spec.device == "gpu" else None

    def weights(self) -> dict[str, NDArray[np.float64]]:
        return to_canonical(self._model.trainable_variables, self._spec.recipe)

    def load_weights(self, weights: Mapping[str, NDArray[np.float64]]) -> None:
        write_weights(self._model, self._spec.recipe, weights)

    def state(self) -> dict[str, NDArray[Any]]:
        return read_state(self._state_variables)

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        write_state(state, self._state_variables)

    @property
    def _state_variables(self) -> dict[str, Any]:
        return state_by_name(self._model, self._optimizer, self._loss_total)

    def loss_total(self) -> float:
        if self._spec.input == "streamed":
            total, _ = self._model.metrics[0].variables
            return float(total.numpy())
        return float(self._loss_total.numpy())

    def step_times(self) -> StepTimes | None:
        return None

    def gradient_average(self) -> dict[str, NDArray[np.float64]]:
        return to_canonical(self._optimizer.gradient_averages, self._spec.recipe)

    def train_epoch(
        self,
        order: NDArray[np.int32] | None,
        on_step: Callable[[int], None],
        *,
        epoch: int,
        done: int = 0,
        stop_every: int | None = None,
    ) -> float:
        if self._spec.input == "streamed":
            return self._train_streamed(stream(self._data, self._spec, order, epoch, done), on_step, done)
        if order is None:
            seed = (shuffle_seed(self._spec.seed, epoch), 0)
            experimental: Any = tf.random.experimental  # type: ignore[attr-defined]
            # The host cuts the order into batches, and TensorFlow shuffles nowhere else.
            with tf.device("/CPU:0"):
                order = experimental.stateless_shuffle(tf.range(len(self._data.train_images)), seed).numpy()
        return self._train_resident(order, on_step, done, stop_every)

    def _train_streamed(self, batches: Any, on_step: Callable[[int], None], done: int) -> float:
        if done * self._spec.batch_size >= len(self._data.train_images):
            # Keras refuses to fit nothing.
            return float(self._model.metrics[0].result())
        self._compile_batch_sizes()
        metrics = [variable.numpy() for variable in self._model.metrics_variables]

        def restore(*_: Any) -> None:
            # Keras resets the mean loss at the start of fit; this restores the checkpoint's.
            for variable, value in zip(self._model.metrics_variables, metrics, strict=True):
                variable.assign(value)

        callback = keras.callbacks.LambdaCallback(
            on_epoch_begin=restore if done else None,
            on_train_batch_end=lambda batch, logs: on_step(done + batch + 1),  # noqa: ARG005
        )
        # Only the step is on the device: the iterator is the host's.
        history = self._model.fit(batches, epochs=1, shuffle=False, verbose=0, callbacks=[callback])
        return float(history.history["loss"][0])

    def _compile_batch_sizes(self) -> None:
        """Let XLA compile the step for all batches of an epoch, whose last may be smaller, before the first step.

        Otherwise XLA would compile for the smaller batch at the end of the epoch, as part of steady training. It
        compiles when a step runs, so a step of each size is trained, and the state restored.
        """
        sizes = batch_sizes(len(self._data.train_images), self._spec.batch_size)
        if self._sizes_compiled or self._spec.execution != "compiled" or len(sizes) == 1:
            return
        state = self.state()
        for size in sizes:
            order = np.arange(size, dtype=np.int32)
            self._model.fit(stream(self._data, self._spec, order, epoch=1), epochs=1, shuffle=False, verbose=0)
        self.load_state(state)
        self._sizes_compiled = True

    def _train_resident(
        self, order: NDArray[np.int32], on_step: Callable[[int], None], done: int, stop_every: int | None
    ) -> float:
        host_indices, host_counts = batches(order, self._spec.batch_size)
        with tf.device(self._device):
            indices, counts = tf.constant(host_indices, tf.int64), tf.constant(host_counts, tf.int64)
            if done == 0:
                self._loss_total.assign(0.0)
            step, stride = done, 1
            while step < len(host_counts):
                stop = min(step + stride, len(host_counts))
                if stop_every is not None:
                    stop = min(stop, step - step % stop_every + stop_every)
                started = time.monotonic()
                self._run_steps(indices, counts, tf.constant(step), tf.constant(stop))
                # Long calls reduce Python's overhead; MAX_CALL_S limits the delay of signals and progress.
                if step > done and time.monotonic() - started < MAX_CALL_S:
                    stride = min(2 * stride, MAX_STEPS_A_CALL)
                step = stop
                on_step(step)
        return float(self._loss_total.numpy()) / len(order)

    def _masked_steps(self, indices: tf.Tensor, counts: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> Any:
        # Not over a range: TensorFlow would compute its length on the device and read it back.
        step = start
        while step < stop:
            self._run_step(indices[step], counts[step])
            step += 1

    def _masked_step(self, indices: tf.Tensor, count: tf.Tensor) -> None:
        """A step in one static shape, for graphs and compilers: only the first ``count`` examples have a weight."""
        with tf.GradientTape() as tape:
            losses = self._pixel_losses(self._images.sparse_read(indices), tf.gather(self._labels, indices))
            losses *= tf.cast(self._positions < count, self._dtype)
            mean_loss = tf.reduce_sum(losses) / tf.cast(count, self._dtype)
        gradients = tape.gradient(mean_loss, [v.value for v in self._model.trainable_variables])
        self._optimizer.apply(gradients, self._model.trainable_variables)
        self._loss_total.assign_add(tf.cast(tf.reduce_sum(losses), tf.float64))

    def _pixel_losses(self, pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return _losses(self._pixel_logits(pixels, training=True), labels)

    def _pixel_logits(self, pixels: tf.Tensor, *, training: bool) -> tf.Tensor:
        images = scale(pixels, self._spec.recipe.scaling, self._dtype)
        logits: tf.Tensor = self._model(images, training=training)
        return tf.cast(logits, self._dtype)

    def evaluate(
        self, images: NDArray[np.uint8], labels: NDArray[np.uint8], *, check: Callable[[], None] | None = None
    ) -> Evaluation:
        pixels, targets = self._on_device(images, labels)

        def sums(start: int, stop: int) -> Any:
            return self._pixel_sums(pixels, targets, tf.constant(start), tf.constant(stop))

        return evaluate_in_batches(len(images), sums, check)

    def _on_device(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[tf.Tensor, tf.Tensor]:
        """The evaluated set on the device; it is copied once, since each epoch evaluates the same arrays."""
        evaluated = self._evaluated
        if evaluated is None or evaluated[0] is not images or evaluated[1] is not labels:
            with tf.device(self._device):
                evaluated = images, labels, tf.constant(images), tf.constant(labels, dtype=tf.int64)
            self._evaluated = evaluated
        return evaluated[2:]

    def _loss_and_correct(
        self, pixels: tf.Tensor, labels: tf.Tensor, start: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        targets = labels[start:stop]
        logits = self._pixel_logits(pixels[start:stop], training=False)
        correct = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int64), targets)
        losses = tf.cast(_losses(logits, targets), tf.float64)
        # A sum of int32 would be computed in host memory also on a GPU.
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(correct, tf.int64))

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        with tf.device(self._device):
            logits = self._pixel_logits(tf.constant(images), training=False)
        return np.asarray(logits.numpy(), dtype=np.float64)


def _losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of each example (n,) for logits (n, 10) and labels (n,) of int64."""
    losses: tf.Tensor
    if logits.dtype == tf.float64:
        # The sparse operation has no float64 kernel for GPUs.
        targets = tf.one_hot(labels, CLASSES, dtype=tf.float64)
        losses = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=targets).loss
        return losses
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return losses


class _CrossEntropy(keras.losses.Loss):
    """The same loss for Keras's fit, which gives the labels as floating-point numbers (n, 1)."""

    def call(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return _losses(logits, tf.cast(tf.reshape(labels, [-1]), tf.int64))
