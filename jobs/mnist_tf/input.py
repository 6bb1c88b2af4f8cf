"""The streamed input path: ``tf.data`` from memory, batched, scaled and prefetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from jobs.mnist_tf.model import scale
from jobs.mnist_tf.numerics import variable_dtype
from jobs.training.seeding import shuffle_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jobs.adapter import RunSpec
    from jobs.datasets import ImageDataset


def stream(data: ImageDataset, spec: RunSpec, order: NDArray[np.int32] | None, epoch: int, done: int = 0) -> Any:
    """Batches of (images (n, 28, 28, 1), labels (n,)) in ``order``, without the first ``done``.

    Where ``order`` is ``None`` tf.data shuffles, by the spec's seed and ``epoch``.
    """
    dtype = variable_dtype(spec.precision)
    # The pipeline runs on the host. Otherwise its tensors would be created on the GPU and copied back.
    with tf.device("/CPU:0"):
        if order is None:
            examples = tf.data.Dataset.from_tensor_slices((data.train_images, data.train_labels))
            shuffled = examples.shuffle(len(data.train_images), seed=shuffle_seed(spec.seed, epoch))
            batches = shuffled.batch(spec.batch_size)
        else:
            images, labels = tf.constant(data.train_images), tf.constant(data.train_labels)
            indices = tf.data.Dataset.from_tensor_slices(order).batch(spec.batch_size)
            batches = indices.map(lambda index: (tf.gather(images, index), tf.gather(labels, index)))
        batches = batches.skip(done)
        return batches.map(
            lambda pixels, labels: (scale(pixels, spec.recipe.scaling, dtype), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).prefetch(tf.data.AUTOTUNE)
