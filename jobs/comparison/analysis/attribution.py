"""What changed around the runs of one framework between two times, reduced to what an operator did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.comparison.fields import ENVIRONMENT, FIELDS, show_value
from jobs.comparison.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary

UPGRADE_FIELDS: Final = frozenset(
    {
        "environment.framework.version",
        "environment.driver_version",
        "devices[].power_limit_w",
        "config.numerics.settings",
        "config.numerics.intra_op_threads",
    }
)
"""Compared fields that an upgrade is about: between then and now they may differ, and are said to."""

VALUES_NAMED: Final = 3


@dataclass(frozen=True, kw_only=True)
class Change:
    """A field whose values were others before; both as shown to people."""

    field: str
    before: tuple[str, ...]
    now: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{listed(self.before, VALUES_NAMED)} → {listed(self.now, VALUES_NAMED)}"


@dataclass(frozen=True, kw_only=True)
class _Cause:
    """Something one exchanges as a whole: ``leads`` tell that it was, ``brings`` comes along with it."""

    name: str
    leads: tuple[str, ...]
    brings: tuple[str, ...] = ()


_FRAMEWORK_BRINGS: Final = (
    "environment.cuda_runtime_version",
    "environment.cudnn_version",
    "config.numerics.settings",
    "config.numerics.intra_op_threads",
)
_CAUSES: Final = (
    _Cause(
        name="image",
        leads=("environment.image.digest", "environment.image.ref"),
        brings=(
            "environment.framework.version",
            *_FRAMEWORK_BRINGS,
            "environment.python_version",
            "environment.package_version",
            "environment.git_sha",
        ),
    ),
    _Cause(name="framework", leads=("environment.framework.version",), brings=_FRAMEWORK_BRINGS),
    _Cause(name="driver", leads=("environment.driver_version",), brings=("environment.cuda_driver_version",)),
    _Cause(
        name="node",
        leads=("environment.kubernetes.node",),
        brings=(
            "devices[].uuid",
            "environment.cpu.model",
            "environment.cpu.logical_cores",
            "environment.cpu.quota_cores",
            "environment.memory_total_bytes",
            "environment.os",
        ),
    ),
    _Cause(name="GPU", leads=("devices[].uuid",)),
    _Cause(name="power limit", leads=("devices[].power_limit_w",)),
    _Cause(name="Python", leads=("environment.python_version",)),
    _Cause(name="package", leads=("environment.package_version", "environment.git_sha")),
)


def changes(before: Sequence[RunSummary], now: Sequence[RunSummary]) -> tuple[Change, ...]:
    """Every field of the surroundings whose values differ between ``before`` and ``now``."""
    found = [
        Change(field=name, before=then, now=today)
        for name, read in _readers()
        if (then := _values(before, read)) != (today := _values(now, read)) and then and today
    ]
    return tuple(sorted(found, key=lambda change: change.field))


def attribute(found: Sequence[Change]) -> str:
    """One clause: ``only the driver changed: 550.54 → 570.12``, or all that did, or that nothing recorded did."""
    left = {change.field: change for change in found}
    causes: list[str] = []
    for cause in _CAUSES:
        lead = next((left[field] for field in cause.leads if field in left), None)
        if lead is not None:
            causes.append(f"{cause.name} changed: {lead.text}")
            for field in (*cause.leads, *cause.brings):
                left.pop(field, None)
    causes += [f"{field} changed: {change.text}" for field, change in left.items()]
    if not causes:
        return "nothing that reports record has changed"
    if len(causes) == 1:
        return f"only the {causes[0]}"
    return "; ".join(causes)


def _readers() -> list[tuple[str, Callable[[RunSummary], Value]]]:
    readers: list[tuple[str, Callable[[RunSummary], Value]]] = [
        (field.path, lambda run, at=at: run.environment[at])  # type: ignore[misc]
        for at, field in enumerate(ENVIRONMENT)
    ]
    known = {name for name, _ in readers}
    readers += [
        (field.path, lambda run, at=at: run.compared[at])  # type: ignore[misc]
        for at, field in enumerate(FIELDS)
        if field.path in UPGRADE_FIELDS - known
    ]
    return [*readers, ("devices[].uuid", lambda run: ", ".join(run.gpu_uuids) or None)]


def _values(runs: Iterable[RunSummary], read: Callable[[RunSummary], Value]) -> tuple[str, ...]:
    values = {read(run) for run in runs}
    # A run that ended early knows less than the others; that is no change.
    return tuple(sorted(show_value(value) for value in values if value is not None or len(values) == 1))
