"""What the models of comparison.json share: their base, and the lists that hold an item for each run."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel, ConfigDict, SerializationInfo, WrapSerializer, WrapValidator

from jobs.choices import Reduction, Scaling
from jobs.comparison.rank_setting import RankSetting, section_title

MetricName = Literal[
    "steady_images_per_s",
    "train_wall_s",
    "test_accuracy_ratio",
    "gpu_util_percent",
    "gpu_sm_util_percent",
    "gpu_power_w",
    "gpu_energy_j",
    "gpu_energy_j_per_million_images",
    "ceiling_share_ratio",
    "ceiling_flop_per_s",
]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OfOneSetting(Part):
    """What is about runs of one recipe, protocol and setting of ranks.

    ``reduction`` is ``null`` for one rank that trains whole batches, ``scaling`` for one rank.
    """

    recipe: str
    protocol: Literal["matched", "published"]
    ranks: int
    reduction: Reduction | None
    scaling: Scaling | None

    @property
    def rank_setting(self) -> RankSetting:
        return RankSetting(ranks=self.ranks, reduction=self.reduction, scaling=self.scaling)

    @property
    def title(self) -> str:
        return section_title(self.recipe, self.protocol, self.rank_setting)


Item = TypeVar("Item", bound=Part)


class LazyList(Sequence[Item], Generic[Item]):
    """A list whose items are made when they are read: of a hundred thousand runs, none is in memory for long."""

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._indices = range(count)
        self._make = make

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._make(at) for at in self._indices[index]]
        return self._make(self._indices[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _keep_lazy(value: Any, validate: Callable[[Any], Any]) -> Any:
    return value if isinstance(value, LazyList) else validate(value)


def _serialize_lazy(value: Sequence[Any], serialize: Callable[[Any], Any], info: SerializationInfo) -> Any:
    """An empty list where the context is a list, which gets ``value``: :mod:`.output.write` streams it later."""
    if info.context is None:
        return serialize(list(value))
    info.context.append(value)
    return []


OnePerRun = Annotated[
    Sequence[Item],
    WrapValidator(_keep_lazy),
    # From a function with a return type, pydantic would take the list's JSON Schema.
    WrapSerializer(lambda value, serialize, info: _serialize_lazy(value, serialize, info)),  # noqa: PLW0108
]
"""A list with an item for each run."""


class Readings(Part):
    """How a GPU figure was read in training: ``n`` readings, which stand for ``coverage_ratio`` of the time."""

    n: int
    coverage_ratio: float
