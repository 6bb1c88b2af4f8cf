"""The fields of a report that must be equal in comparable runs, and those that describe the environment."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.report.schema import Report

Value = str | int | float | bool | None

_ALWAYS: Final = frozenset({"matched", "published"})
_PUBLISHED: Final = frozenset({"published"})


@dataclass(frozen=True, kw_only=True)
class Field:
    """One compared field, by its path in the report.

    ``framework_bound`` are the protocols in which each framework has its own value: the sides may differ, which the
    comparison lists, but the runs of one side may not. ``may_be_unknown``: null says that it was not recorded, as in
    reports of before the field, and differs from nothing.
    """

    path: str
    read: Callable[[Report], Value]
    framework_bound: frozenset[str] = frozenset()
    may_be_unknown: bool = False


def _at(path: str, *, framework_bound: frozenset[str] = frozenset(), may_be_unknown: bool = False) -> Field:
    parent_path, _, name = path.rpartition(".")
    read_parent = attrgetter(parent_path)

    def read(report: Report) -> Value:
        try:
            parent = read_parent(report)
        except AttributeError:
            # A parent is null, as environment.image may be.
            return None
        return None if parent is None else cast("Value", getattr(parent, name))

    return Field(path=path, read=read, framework_bound=framework_bound, may_be_unknown=may_be_unknown)


def _driver_major(report: Report) -> Value:
    version = report.environment.driver_version
    return None if version is None else f"{version.partition('.')[0]}.x"


def _device_names(report: Report) -> Value:
    several = report.config.ranks > 1 and report.devices
    names = sorted(part.device for part in report.ranks) if several else [device.name for device in report.devices]
    return ", ".join(names) or None


def _power_limits(report: Report) -> Value:
    limits = [device.power_limit_w for device in report.devices]
    return ", ".join("unknown" if limit is None else f"{limit:g}" for limit in limits) or None


def _gpu_memory(report: Report) -> Value:
    """In whole GiB, since drivers reserve different shares of a GPU's memory. Frameworks count it in other ways."""
    sizes = [device.memory_total_bytes for device in report.devices if device.mapping_method is not None]
    # In integers, since a size may be more than a float holds.
    return ", ".join("unknown" if size is None else f"{(size + 2**29) // 2**30} GiB" for size in sizes) or None


def _quota(report: Report) -> Value:
    """Null in the report says that no limit is set, which is known."""
    quota = report.environment.cpu.quota_cores
    return "unlimited" if quota is None else quota


def _settings(report: Report) -> Value:
    settings = report.config.numerics.settings
    return ", ".join(f"{name}={value}" for name, value in sorted(settings.items())) or None


_QUOTA: Final = Field(path="environment.cpu.quota_cores", read=_quota)

FIELDS: Final = (
    _at("config.parameter_count"),
    _at("config.epochs"),
    # A GPU that was busy for longer is hotter, and may run at other clocks: this is another measurement.
    _at("config.repeat"),
    _at("config.batch_size"),
    _at("config.learning_rate"),
    _at("config.dropout"),
    _at("config.initializer", framework_bound=_PUBLISHED),
    _at("config.optimizer.name"),
    _at("config.optimizer.momentum"),
    _at("config.optimizer.beta_1"),
    _at("config.optimizer.beta_2"),
    _at("config.optimizer.epsilon"),
    _at("config.optimizer.form", framework_bound=_PUBLISHED),
    _at("config.precision"),
    _at("config.numerics.compute_dtype"),
    _at("config.numerics.variable_dtype"),
    _at("config.numerics.tf32_matmul"),
    _at("config.numerics.tf32_convolution"),
    _at("config.numerics.deterministic"),
    _at("config.numerics.intra_op_threads", may_be_unknown=True),
    # torch and TensorFlow use these threads for different work.
    _at("config.numerics.inter_op_threads", framework_bound=_ALWAYS, may_be_unknown=True),
    # Each framework has its own settings: the sides always differ, the runs of one side must not.
    Field(path="config.numerics.settings", read=_settings, framework_bound=_ALWAYS),
    _at("environment.framework.version", framework_bound=_ALWAYS),
    # The default is each framework's fastest, and the same value means different mechanisms.
    _at("config.execution", framework_bound=_ALWAYS),
    _at("config.input"),
    _at("config.device"),
    Field(path="devices[].name", read=_device_names),
    Field(path="devices[].power_limit_w", read=_power_limits),
    Field(path="environment.driver_version", read=_driver_major),
    Field(path="devices[].memory_total_bytes", read=_gpu_memory, may_be_unknown=True),
    # Beside a GPU too: the CPU feeds it.
    _at("environment.cpu.model", may_be_unknown=True),
    _at("environment.cpu.logical_cores", may_be_unknown=True),
    _at("environment.cpu.affinity_cores", may_be_unknown=True),
    _QUOTA,
    _at("environment.package_version"),
)
"""What must be equal in comparable runs, except what each framework chooses."""

ENVIRONMENT: Final = tuple(
    _QUOTA if path == _QUOTA.path else _at(path)
    for path in (
        "environment.driver_version",
        "environment.cuda_driver_version",
        "environment.cuda_runtime_version",
        "environment.cudnn_version",
        "environment.python_version",
        "environment.package_version",
        "environment.image.ref",
        "environment.image.digest",
        "environment.git_sha",
        "environment.kubernetes.node",
        "environment.cpu.model",
        "environment.cpu.logical_cores",
        "environment.cpu.affinity_cores",
        "environment.cpu.quota_cores",
        "environment.memory_total_bytes",
        "environment.os",
    )
)
"""What may differ between comparable runs; differences are listed."""


def show_value(value: Value) -> str:
    """``value`` as a comparison shows it: ``not given`` for null, ``yes`` and ``no``."""
    match value:
        case None:
            return "not given"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
