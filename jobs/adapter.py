"""What an adapter implements: protocols that the frameworks' modules satisfy without inheriting anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ConfigDict, InstanceOf

from jobs.choices import DeviceChoice, DeviceKind, Execution, InputPath, Precision, TrainingProtocol
from jobs.recipes import Recipe  # noqa: TC001 - pydantic reads it at run time
from jobs.report.configuration import RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from jobs.choices import FrameworkName
    from jobs.datasets import ImageDataset
    from jobs.ranks.group import RankGroup
    from jobs.ranks.place import RankPlace
    from jobs.report.schema import Numerics

# Adapters find what they need here.
__all__ = ["DeviceChoice", "DeviceKind", "Execution", "InputPath", "Precision", "TrainingProtocol"]


@dataclass(frozen=True, kw_only=True)
class FrameworkDevice:
    """The device that an adapter selected.

    ``uuid`` and ``pci_bus_id`` identify a GPU outside the framework, whose ``index`` counts visible devices
    only. Either may be ``None`` if the framework does not report it; both are ``None`` for a CPU.
    """

    kind: DeviceKind
    index: int
    name: str
    uuid: str | None = None
    pci_bus_id: str | None = None
    compute_capability: str | None = None
    memory_total_bytes: int | None = None
    note: str | None = None
    """What the user should know before work starts on the device; printed by ``train`` and ``doctor``."""


class RunSpec(RunSettings):
    """All settings of one run that reach training, with every default resolved, and the recipe.

    A field of the same name in :class:`~jobs.training.options.TrainRequest` fills it, and every field is part of the
    checkpoint's fingerprint.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: InstanceOf[Recipe]

    @classmethod
    def for_recipe(
        cls, recipe: Recipe, *, device: DeviceKind, execution: Execution, precision: Precision = "fp32"
    ) -> RunSpec:
        """A matched run with resident data and the recipe's own settings."""
        return cls(
            recipe=recipe,
            protocol="matched",
            seed=recipe.seed,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            precision=precision,
            execution=execution,
            input="resident",
            device=device,
        )

    def without_dropout(self) -> RunSpec:
        return self.replace(recipe=self.recipe.without_dropout())

    def replace(self, **changes: Any) -> RunSpec:
        """The same settings with ``changes``, which are checked as well."""
        return RunSpec(**vars(self) | changes)


@dataclass(frozen=True, kw_only=True)
class FrameworkVersions:
    name: FrameworkName
    version: str
    cuda_runtime: str | None
    """CUDA version the framework was built with."""
    cudnn: str | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Mean loss and number of right answers over ``examples`` images."""

    loss: float
    correct: int
    examples: int

    @property
    def accuracy_ratio(self) -> float:
        return self.correct / self.examples


@dataclass(frozen=True, kw_only=True)
class DeviceCheck:
    """One check that only the device itself can answer; ``doctor --device gpu`` runs it and prints one line."""

    name: str
    """What is checked, the subject of the line: ``lenet: captured steps``."""
    run: Callable[[], str]
    """Runs the check on the device, and returns what was compared, and the speed where it was measured.

    Raises ``DeviceCheckFailed`` with what differs, by how much, and where. Any other error of the framework also
    becomes a ``fail`` line.
    """


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """What steps took in one rank; times are ``None`` where the framework cannot take them on its device."""

    steps: int
    compute_s: float | None
    communication_s: float | None


class Trainer(Protocol):
    """A model on a device, with its training data.

    Weights are read and loaded in the canonical layout, as float64, which represents every narrower value exactly.
    """

    @property
    def parameter_count(self) -> int: ...

    @property
    def numerics(self) -> Numerics:
        """The settings in force, read back from the framework."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished all queued work."""
        ...

    def memory_peak_bytes(self) -> int | None:
        """Peak of the framework's allocator on the device since this trainer was made; ``None`` on the CPU."""
        ...

    def weights(self) -> dict[str, NDArray[np.float64]]: ...

    def load_weights(self, weights: Mapping[str, NDArray[np.float64]]) -> None: ...

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next step depends on: weights, optimizer, random numbers, the epoch's loss so far.

        Arrays have the framework's own layout and types, so that :meth:`load_state` restores every bit.
        """
        ...

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` of a trainer of the same spec returned.

        Raises:
            ValueError: the arrays are not those of this trainer; nothing was changed.
        """
        ...

    def train_epoch(
        self,
        order: NDArray[np.int32] | None,
        on_step: Callable[[int], None],
        *,
        epoch: int,
        done: int = 0,
        stop_every: int | None = None,
    ) -> float:
        """Train the rest of an epoch and return the mean training loss of all its examples.

        ``order`` lists the examples in training order; ``None`` leaves the shuffle to the framework. The first
        ``done`` steps were done before :meth:`load_state`. ``on_step`` gets the number of steps done: after the
        first step, at each multiple of ``stop_every``, after the last, and often in between. It may end the epoch
        between two steps by an exception.
        """
        ...

    def evaluate(
        self, images: NDArray[np.uint8], labels: NDArray[np.uint8], *, check: Callable[[], None] | None = None
    ) -> Evaluation:
        """Evaluate all of ``images`` (n, 28, 28) with dropout off.

        ``check`` is called between batches; an exception it raises ends the evaluation.
        """
        ...

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The model's outputs (n, 10) for ``images`` (n, 28, 28) with dropout off."""
        ...

    def loss_total(self) -> float:
        """The sum of the losses of the epoch's examples so far."""
        ...

    def step_times(self) -> StepTimes | None:
        """The steps since the last call; ``None`` in a trainer of one rank without shards."""
        ...

    def gradient_average(self) -> dict[str, NDArray[np.float64]]:
        """The optimizer's running average of gradients by weight, in the canonical layout.

        SGD's velocity, ``momentum * before + gradient``; Adam's m, ``beta_1 * before + (1 - beta_1) * gradient``.
        """
        ...


class Framework(Protocol):
    """An adapter's ``framework`` module."""

    def versions(self) -> FrameworkVersions: ...

    def select_device(self, choice: DeviceChoice) -> FrameworkDevice:
        """Choose the device.

        Raises:
            NoUsableGpu: a GPU was asked for and the framework cannot use one: none is found, or the installed build
                has no code that the GPU and its driver can run. With ``"auto"`` this is a CPU.
        """
        ...

    def default_execution(self, device: DeviceKind, input_path: InputPath, *, in_shards: bool = False) -> Execution:
        """The fastest execution measured for the device; for streamed input the framework's own default.

        ``in_shards``: for training that computes its batches in shards, which not every execution can.
        """
        ...

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether ``error`` says that the memory of the device or the host has run out."""
        ...

    def matmul_flop_per_s(self, spec: RunSpec) -> float:
        """The device's peak: operations per second of a large matrix product in the spec's precision, on its device.

        Takes one to two seconds, and does not change the framework's random state.
        """
        ...

    def device_checks(self, device: DeviceKind, data: ImageDataset) -> Iterable[DeviceCheck]:
        """The checks of this framework for ``doctor --device gpu``, in the order in which they shall run.

        ``data`` has the images of one short epoch, :data:`~jobs.adapter_common.CHECK_STEPS` steps, the last of fewer
        images. ``doctor`` does not begin the last ones where its time limit is too short. Building the list takes no
        time on the device. Each check creates its own trainers and keeps nothing on the device. It raises
        :class:`~jobs.errors.NotMeasured` for a ``note``. On ``"cpu"`` the tests run the same checks.
        """
        ...

    def join_ranks(self, place: RankPlace, *, timeout_s: float) -> None:
        """Connect this process to the other ranks, before anything else is asked of the framework.

        Raises:
            BadInput: this framework is not started by the engine of ``place``.
            RanksNotConnected: a rank did not come within ``timeout_s``, or a port is in use.
        """
        ...

    def create_trainer(self, spec: RunSpec, data: ImageDataset, group: RankGroup | None = None) -> Trainer:
        """Build model and optimizer and stage the data, with the framework's own initial weights.

        ``group`` is given where ``spec.reduction`` is set. The trainer then calls :meth:`RankGroup.next_stop` at the
        start of an epoch and after each stop, and ``on_step`` at each stop and at no other step.

        Raises:
            BadInput: the device cannot do what the spec asks for.
        """
        ...
