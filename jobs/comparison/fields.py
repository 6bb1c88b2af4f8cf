"""The fields of a report that decide what may stand side by side, and those that describe its surroundings."""

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
    """One field that is compared, by its path in the report.

    ``framework_bound`` are the protocols in which each framework decides the value for itself: the sides may
    differ there, and the comparison says so, but the runs of one side may not.
    """

    path: str
    read: Callable[[Report], Value]
    framework_bound: frozenset[str] = frozenset()


def _at(path: str, *, framework_bound: frozenset[str] = frozenset()) -> Field:
    *parents, name = path.split(".")
    parent, value = attrgetter(".".join(parents)), attrgetter(name)

    def read(report: Report) -> Value:
        try:
            found = parent(report)
        except AttributeError:
            # Of its parents only a part that may be null, as the image's, is without the next one.
            return None
        return None if found is None else cast("Value", value(found))

    return Field(path=path, read=read, framework_bound=framework_bound)


def _driver_major(report: Report) -> Value:
    version = report.environment.driver_version
    return None if version is None else f"{version.partition('.')[0]}.x"


def _device_names(report: Report) -> Value:
    return ", ".join(device.name for device in report.devices) or None


def _power_limits(report: Report) -> Value:
    limits = [device.power_limit_w for device in report.devices]
    return ", ".join("unknown" if limit is None else f"{limit:g}" for limit in limits) or None


def _settings(report: Report) -> Value:
    settings = report.config.numerics.settings
    return ", ".join(f"{name}={value}" for name, value in sorted(settings.items())) or None


def _on_cpu(path: str, *, framework_bound: frozenset[str] = frozenset()) -> Field:
    """A field of the CPU, which is the device where training runs on it, and beside the point elsewhere."""
    field = _at(path)
    return Field(
        path=path,
        read=lambda report: field.read(report) if report.config.device == "cpu" else None,
        framework_bound=framework_bound,
    )


FIELDS: Final = (
    _at("config.parameter_count"),
    _at("config.epochs"),
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
    _on_cpu("config.numerics.intra_op_threads", framework_bound=_ALWAYS),
    # By the framework's own names: equal between the sides they cannot be, inside a side they must.
    Field(path="config.numerics.settings", read=_settings, framework_bound=_ALWAYS),
    _at("environment.framework.version", framework_bound=_ALWAYS),
    # Its default is each framework's fastest, and the same word does not mean the same machinery in both.
    _at("config.execution", framework_bound=_ALWAYS),
    _at("config.input"),
    _at("config.device"),
    Field(path="devices[].name", read=_device_names),
    Field(path="devices[].power_limit_w", read=_power_limits),
    Field(path="environment.driver_version", read=_driver_major),
    _on_cpu("environment.cpu.model"),
    _on_cpu("environment.cpu.logical_cores"),
    _on_cpu("environment.cpu.quota_cores"),
)
"""What must be equal inside a group, the framework's own choices aside."""

ENVIRONMENT: Final = tuple(
    _at(path)
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
        "environment.cpu.quota_cores",
        "environment.memory_total_bytes",
        "environment.os",
    )
)
"""What may differ between comparable runs and is listed where it does."""


def show_value(value: Value) -> str:
    """``value`` as a comparison shows it: ``not given`` for null, ``yes`` and ``no``."""
    match value:
        case None:
            return "not given"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
