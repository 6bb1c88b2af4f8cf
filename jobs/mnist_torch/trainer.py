"""Training and evaluation in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import RandomSampler

from jobs.adapter_common import batch_sizes, evaluate_in_batches
from jobs.mnist_torch.cpu_layers import FastCpuDropout, OneDnnLinear
from jobs.mnist_torch.cuda_graph import StepGraph
from jobs.mnist_torch.model import build_model, scale, to_canonical, write_weights
from jobs.mnist_torch.numerics import autocast, device_for, effective_numerics, set_precision, variable_dtype
from jobs.mnist_torch.optimizer import build_optimizer
from jobs.mnist_torch.state import gradient_averages, read_state, state_by_name, write_state
from jobs.training.seeding import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from jobs.adapter import Evaluation, RunSpec, StepTimes
    from jobs.datasets import ImageDataset
    from jobs.mnist_torch.input import Digits
    from jobs.report.schema import Numerics


class TorchTrainer:
    """See :class:`jobs.adapter.Trainer`. Without ``capture``, ``--execution graph`` runs its steps uncaptured."""

    def __init__(
        self,
        spec: RunSpec,
        data: ImageDataset,
        *,
        capture: bool = True,
        dropout: Callable[[float], nn.Module] | None = None,
    ) -> None:
        """``dropout`` makes the model's dropout layers; by default they are the fastest for the device."""
        self._spec = spec
        self._captures = capture and spec.execution == "graph"
        self._device = device_for(spec.device)
        self._dtype = variable_dtype(spec.precision)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        set_precision(spec.precision)
        torch.manual_seed(spec.seed)
        # The same function, measured 7 to 17 % faster on two CPU cores; TensorFlow was not faster.
        recipe = spec.recipe.pool_before_relu() if spec.input == "resident" else spec.recipe
        if spec.input == "resident" and spec.device == "cpu" and spec.execution != "compiled":
            model = build_model(recipe, dropout=dropout or FastCpuDropout, dense=OneDnnLinear)
        else:
            # torch.compile generates its own kernels and does not support oneDNN's operator in training.
            model = build_model(recipe, dropout=dropout or nn.Dropout)
        self._model = model.to(self._device, self._dtype).to(memory_format=weight_layout(spec))
        self._optimizer = build_optimizer(spec, self._model.parameters())
        self._loss_total = torch.zeros((), dtype=torch.float64, device=self._device)
        self._order = torch.arange(len(data.train_images), dtype=torch.int32)
        losses = self._pixel_losses if spec.input == "resident" and spec.device == "cpu" else self._image_losses
        self._losses = torch.compile(losses) if spec.execution == "compiled" else losses
        self._sizes_compiled = False
        self._graph: StepGraph | None = None
        # The streamed path reads batches from the host; the others gather them on the device.
        self._digits: Digits | None = None
        if spec.input == "streamed":
            from jobs.mnist_torch.input import Digits  # noqa: PLC0415 - takes seconds, only streamed runs need it

            self._digits = Digits(data, spec)
        else:
            pixels = torch.tensor(data.train_images, device=self._device)
            # A GPU has room for the scaled images, so that a step does not scale; a CPU's cache prefers bytes.
            self._images = pixels if spec.device == "cpu" else self._scaled(pixels)
            self._labels = torch.tensor(data.train_labels, device=self._device, dtype=torch.int64)
            self._positions = torch.arange(spec.batch_size, device=self._device)
        self._evaluated: tuple[NDArray[np.uint8], NDArray[np.uint8], Tensor, Tensor] | None = None

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def numerics(self) -> Numerics:
        return effective_numerics(self._spec.precision)

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def memory_peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_allocated(self._device)) if self._device.type == "cuda" else None

    def weights(self) -> dict[str, NDArray[np.float64]]:
        return to_canonical(self._model.parameters(), self._spec.recipe)

    def load_weights(self, weights: Mapping[str, NDArray[np.float64]]) -> None:
        write_weights(self._model, self._spec.recipe, weights)

    def state(self) -> dict[str, NDArray[Any]]:
        return read_state(self._state_tensors)

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        write_state(state, self._state_tensors)

    @property
    def _state_tensors(self) -> dict[str, Tensor]:
        extra = {"loss_total": self._loss_total, "order": self._order}
        return state_by_name(self._model, self._optimizer, extra)

    def loss_total(self) -> float:
        return float(self._loss_total)

    def step_times(self) -> StepTimes | None:
        return None

    def gradient_average(self) -> dict[str, NDArray[np.float64]]:
        return to_canonical(gradient_averages(self._model, self._optimizer), self._spec.recipe)

    def train_epoch(
        self,
        order: NDArray[np.int32] | None,
        on_step: Callable[[int], None],
        *,
        epoch: int,  # noqa: ARG002 - torch's shuffle follows from its own random numbers
        done: int = 0,
        stop_every: int | None = None,  # noqa: ARG002 - the hook is called after every step
    ) -> float:
        self._model.train()
        if done == 0:
            self._loss_total.zero_()
        if order is None:
            if done == 0:
                self._order.copy_(self._shuffle())
            order = self._order.numpy()
        if self._digits is not None:
            self._compile_batch_sizes(self._digits)
            self._train_streamed(self._digits.batches(order, done), on_step, done)
        else:
            self._train_resident(order, on_step, done)
        return float(self._loss_total) / len(self._order)

    def _shuffle(self) -> Tensor:
        """The order in which a ``DataLoader`` with ``shuffle=True`` would take the examples."""
        if self._digits is None:
            return torch.randperm(len(self._order))
        # A DataLoader draws a seed for its workers before its sampler draws one for the order.
        torch.empty((), dtype=torch.int64).random_()
        return torch.tensor(list(RandomSampler(self._digits)))

    def _train_streamed(self, loader: Iterable[list[Tensor]], on_step: Callable[[int], None], done: int) -> None:
        for step, batch in enumerate(loader, start=done + 1):
            self._streamed_step(batch)
            on_step(step)

    def _streamed_step(self, batch: list[Tensor]) -> None:
        images, labels = (tensor.to(self._device, non_blocking=True) for tensor in batch)
        self._whole_step(images, labels)

    def _compile_batch_sizes(self, digits: Digits) -> None:
        """Compile the step for all batches of an epoch, whose last may be smaller, before the first step.

        Otherwise torch would compile for the smaller batch at the end of the epoch, as part of steady training. It
        compiles when a step runs, so a step of each size is trained, and the state restored.
        """
        sizes = batch_sizes(len(digits), self._spec.batch_size)
        if self._sizes_compiled or self._spec.execution != "compiled" or len(sizes) == 1:
            return
        state = self.state()
        # The whole batch first: torch compiles the first size for itself alone, which is faster, and the next for any.
        for size in sizes:
            for batch in digits.batches(np.arange(size, dtype=np.int32)):
                self._streamed_step(batch)
        self.load_state(state)
        self._sizes_compiled = True

    def _train_resident(self, order: NDArray[np.int32], on_step: Callable[[int], None], done: int) -> None:
        host_indices, host_counts = batches(order, self._spec.batch_size)
        if done >= len(host_counts):
            # Nothing is left to train. Capturing a graph would take time that counts as training.
            return
        # One transfer for the epoch: a row has a step's indices and their number.
        rows = torch.tensor(np.column_stack([host_indices, host_counts]), device=self._device)
        if self._captures:
            if self._graph is None:
                self._graph = self._capture(rows)
            self._graph.start_epoch(rows, done)
        for step in range(done, len(host_counts)):
            if self._graph is not None:
                self._graph.replay()
            elif self._spec.execution in {"compiled", "graph"}:
                self._masked_step(rows[step])
            else:
                self._whole_step(*self._gather(rows[step, : host_counts[step]]))
            on_step(step + 1)

    def _capture(self, rows: Tensor) -> StepGraph:
        state = self.state()

        def restore() -> None:
            self.load_state(state)
            # The graph allocates its own gradients.
            self._optimizer.zero_grad()

        return StepGraph(self._masked_step, rows, restore=restore)

    def _masked_step(self, row: Tensor) -> None:
        """A step in one static shape, for graphs and compilers: only the first ``row[-1]`` examples have a weight."""
        indices, count = row[:-1], row[-1]
        mask = (self._positions < count).to(self._dtype)
        losses = self._losses(*self._gather(indices))
        self._optimizer_step(losses, mask / count)
        self._loss_total += (losses.detach() * mask).sum()

    def _whole_step(self, images: Tensor, labels: Tensor) -> None:
        losses = self._losses(images, labels)
        self._optimizer_step(losses, torch.ones_like(losses) / len(losses))
        self._loss_total += losses.detach().sum()

    def _gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._images.index_select(0, indices), self._labels.index_select(0, indices)

    def _optimizer_step(self, losses: Tensor, shares: Tensor) -> None:
        """One optimizer step on the mean of ``losses``, one per example, of which ``shares`` are the gradients."""
        self._optimizer.zero_grad()
        losses.backward(shares)  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _scaled(self, pixels: Tensor) -> Tensor:
        return scale(pixels, self._spec.recipe.scaling, self._dtype)

    def _pixel_losses(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return self._image_losses(self._scaled(pixels), labels)

    def _image_losses(self, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self._image_logits(images), labels, reduction="none")

    def _image_logits(self, images: Tensor) -> Tensor:
        with autocast(self._spec.precision, self._spec.device):
            logits: Tensor = self._model(images)
        return logits.to(self._dtype)

    def evaluate(
        self, images: NDArray[np.uint8], labels: NDArray[np.uint8], *, check: Callable[[], None] | None = None
    ) -> Evaluation:
        pixels, targets = self._on_device(images, labels)

        def sums(start: int, stop: int) -> tuple[Tensor, Tensor]:
            return self._batch_sums(pixels[start:stop], targets[start:stop])

        return evaluate_in_batches(len(images), sums, check)

    def _on_device(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """The evaluated set on the device; it is copied once, since each epoch evaluates the same arrays."""
        evaluated = self._evaluated
        if evaluated is None or evaluated[0] is not images or evaluated[1] is not labels:
            pixels = torch.tensor(images, device=self._device)
            targets = torch.tensor(labels, device=self._device, dtype=torch.int64)
            evaluated = self._evaluated = images, labels, pixels, targets
        return evaluated[2:]

    def _batch_sums(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._evaluation_logits(pixels)
        losses = functional.cross_entropy(logits, targets, reduction="sum")
        return losses.double(), (logits.argmax(dim=1) == targets).sum()

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        pixels = torch.tensor(images, device=self._device)
        return self._evaluation_logits(pixels).to("cpu", torch.float64).numpy()

    @torch.no_grad()
    def _evaluation_logits(self, pixels: Tensor) -> Tensor:
        self._model.eval()
        return self._image_logits(self._scaled(pixels))


def weight_layout(spec: RunSpec) -> torch.memory_format:
    """Channels last for oneDNN on a CPU, and on a GPU for Tensor Cores, which TF32 and bfloat16 use.

    In float32 cuDNN's convolutions were slower with channels last (github.com/pytorch/pytorch/issues/44943).
    """
    if spec.input == "resident" and (spec.device == "cpu" or spec.precision in {"tf32", "bf16"}):
        return torch.channels_last
    return torch.preserve_format
