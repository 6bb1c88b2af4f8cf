"""Training as one of several ranks, each of which computes its shards of every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from jobs.adapter import StepTimes
from jobs.choices import SHARDS
from jobs.mnist_tf.collectives import Collectives, add_in_tree, lost_peers
from jobs.mnist_tf.dropout import CounterDropout
from jobs.mnist_tf.trainer import TensorFlowTrainer
from jobs.training.seeding import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from jobs.adapter import RunSpec
    from jobs.datasets import ImageDataset
    from jobs.ranks.group import RankGroup


class RankTrainer(TensorFlowTrainer):
    """See :class:`jobs.adapter.Trainer`. All ranks have the same weights and the same state at each stop."""

    def __init__(self, spec: RunSpec, data: ImageDataset, group: RankGroup) -> None:
        assert spec.reduction is not None, "shards are of a reduction"
        if spec.device == "gpu" and spec.reduction == "exact":
            # Otherwise cuDNN's fastest kernels add in any order.
            tf.config.experimental.enable_op_determinism()
        self._group = group
        self._exact = spec.reduction == "exact"
        self._collectives = Collectives(group, spec.reduction, eager=spec.execution == "eager")
        # A GPU runs behind the host, whose clock says nothing about it.
        self._timed = spec.device == "cpu"
        self._steps, self._total_s, self._communication_s = 0, 0.0, 0.0
        super().__init__(spec, data)
        shards = group.shards
        self._shard_size = -(-spec.batch_size // SHARDS)
        with tf.device(self._device):
            positions = tf.range(SHARDS * self._shard_size, dtype=tf.int64)
            self._positions = tf.reshape(positions, [SHARDS, -1])[shards.start : shards.stop]
            self._shard_numbers = tf.range(shards.start, shards.stop, dtype=tf.int64)
        self._dropout = [layer for layer in self._model.layers if isinstance(layer, CounterDropout)]

    def step_times(self) -> StepTimes:
        communication_s = self._communication_s if self._timed else None
        compute_s = self._total_s - self._communication_s if self._timed else None
        times = StepTimes(steps=self._steps, compute_s=compute_s, communication_s=communication_s)
        self._steps, self._total_s, self._communication_s = 0, 0.0, 0.0
        return times

    def _train_resident(
        self, order: NDArray[np.int32], on_step: Callable[[int], None], done: int, stop_every: int | None
    ) -> float:
        host_indices, host_counts = batches(order, self._spec.batch_size)
        filled = np.pad(host_indices, ((0, 0), (0, SHARDS * self._shard_size - self._spec.batch_size)))
        own = filled.reshape(len(filled), SHARDS, -1)[:, self._group.shards]
        with tf.device(self._device):
            indices, counts = tf.constant(own, tf.int64), tf.constant(host_counts, tf.int64)
            if done == 0:
                self._loss_total.assign(0.0)
            self._group.start_epoch()
            step = done
            while step < len(host_counts):
                end = len(host_counts)
                if stop_every is not None:
                    end = min(end, step - step % stop_every + stop_every)
                # The first step is a phase of its own.
                stop = self._group.next_stop(step, step + 1 if step == done else end)
                with lost_peers():
                    times_s = self._run_steps(indices, counts, tf.constant(step), tf.constant(stop)).numpy()
                self._total_s += float(times_s[0])
                self._communication_s += float(times_s[1])
                self._steps += stop - step
                step = stop
                on_step(step)
        return float(self._loss_total.numpy()) / len(order)

    def _masked_steps(self, indices: tf.Tensor, counts: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Seconds of these steps, and of their communication, of shape (2,); zeros on a GPU."""
        communication_s, start_s = tf.zeros((), tf.float64), self._now(start)
        with tf.control_dependencies([start_s]):
            step = tf.identity(start)
        while step < stop:
            communication_s += self._shared_step(indices[step], counts[step])
            step += 1
        return tf.stack([self._now(communication_s) - start_s, communication_s])

    def _shared_step(self, indices: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """One step of all ranks. ``indices`` (own shards, examples of a shard) are those of this rank.

        Returns the seconds of its communication.
        """
        own = self._shard_sums(indices, count)
        started_s = self._now(own)
        with tf.control_dependencies([started_s]):
            total = self._collectives.add_over_ranks(tf.identity(own))
        communication_s = self._now(total) - started_s
        variables = self._model.trainable_variables
        *flat, losses = tf.split(total[0], [*(int(np.prod(v.shape)) for v in variables), 1])
        gradients = [tf.reshape(one, v.shape) for one, v in zip(flat, variables, strict=True)]
        self._optimizer.apply(gradients, variables)
        self._loss_total.assign_add(tf.cast(losses[0], tf.float64))
        for layer in self._dropout:
            layer.next_step()
        return communication_s

    def _shard_sums(self, indices: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """The sum over this rank's shards of gradients and losses, flat, of shape (1, n)."""
        if not self._exact:
            shards = [tf.constant(shard, tf.int64) for shard in self._group.shards]
            flat = tf.reshape(indices, [-1]), tf.reshape(self._positions, [-1])
            return self._gradient(*flat, count, shards)[tf.newaxis]
        number = len(self._group.shards)
        rows = tf.TensorArray(self._dtype, size=number, element_shape=[self.parameter_count + 1])
        # A loop, so that each shard is computed by the same graph for any number of ranks. In tf.map_fn the host would
        # wait for a GPU at each shard.
        shard = tf.constant(0)
        while shard < number:
            gradient = self._gradient(indices[shard], self._positions[shard], count, [self._shard_numbers[shard]])
            rows = rows.write(shard, gradient)
            shard += 1
        return add_in_tree(tf.ensure_shape(rows.stack(), [number, None]))

    def _gradient(
        self, indices: tf.Tensor, positions: tf.Tensor, count: tf.Tensor, shards: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """Gradients and sum of the losses of these examples of a batch of ``count``, flat, of shape (n,)."""
        for layer in self._dropout:
            layer.shards = shards
        variables: list[Any] = [variable.value for variable in self._model.trainable_variables]
        with tf.GradientTape() as tape:
            losses = self._pixel_losses(self._images.sparse_read(indices), tf.gather(self._labels, indices))
            losses *= tf.cast(positions < count, self._dtype)
            part_of_mean = tf.reduce_sum(losses) / tf.cast(count, self._dtype)
        gradients = tape.gradient(part_of_mean, variables)
        flat: tf.Tensor = tf.concat(
            [*(tf.reshape(one, [-1]) for one in gradients), tf.reduce_sum(losses)[tf.newaxis]], axis=0
        )
        return flat

    def _now(self, after: tf.Tensor) -> tf.Tensor:
        """Seconds at which ``after`` is computed; zero on a GPU."""
        if not self._timed:
            return tf.zeros((), tf.float64)
        with tf.control_dependencies([after]):
            now: tf.Tensor = tf.timestamp()
        return now
