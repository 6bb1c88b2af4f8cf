"""The streamed input path: torchvision's transforms in a dataset behind a ``DataLoader``.

Only a streamed run imports this: torchvision takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import VisionDataset
from torchvision.transforms import v2

from jobs.mnist_torch.numerics import variable_dtype

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jobs.adapter import RunSpec
    from jobs.datasets import ImageDataset


class Digits(VisionDataset):  # type: ignore[misc] # torchvision ships no types
    """The training images as PIL images, transformed one by one as torchvision's datasets do."""

    def __init__(self, data: ImageDataset, spec: RunSpec) -> None:
        scaling = spec.recipe.scaling
        transform = v2.Compose(
            [
                v2.PILToTensor(),
                v2.ToDtype(variable_dtype(spec.precision), scale=True),
                v2.Normalize((scaling.mean,), (scaling.std,)),
            ]
        )
        super().__init__(root="", transform=transform)
        self._spec = spec
        self._images = data.train_images
        self._labels = data.train_labels

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self._images[index])), int(self._labels[index])

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, order: NDArray[np.int32], done: int = 0) -> DataLoader[Any]:
        """Batches of (images (n, 1, 28, 28), labels (n,)) in ``order``, without the first ``done``."""
        on_gpu = self._spec.device == "gpu"
        return DataLoader(
            self,
            batch_size=self._spec.batch_size,
            sampler=order[done * self._spec.batch_size :].tolist(),
            num_workers=1 if on_gpu else 0,
            pin_memory=on_gpu,
            persistent_workers=False,
            # A separate generator for the workers' seed, so that reading images does not change dropout.
            generator=torch.Generator(),
        )
