"""Attributes environment changes between two sets of runs to their cause, such as a new driver or image."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from jobs.comparison.fields import ENVIRONMENT, FIELDS, show_value
from jobs.comparison.schema_gate import EnvironmentChange
from jobs.comparison.text import join_limited

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary

UPGRADE_FIELDS: Final = frozenset(
    {
        "environment.framework.version",
        "environment.driver_version",
        "devices[].power_limit_w",
        "config.numerics.settings",
        "config.numerics.intra_op_threads",
        "config.numerics.inter_op_threads",
        "environment.package_version",
    }
)
"""Compared fields that an upgrade changes: they may differ from the baseline's, and are listed as changes."""

_COMPARED: Final = UPGRADE_FIELDS - {field.path for field in ENVIRONMENT}
"""Those not in :data:`ENVIRONMENT`, which has the driver's full version; :data:`FIELDS` has its major only."""

_MAX_VALUES_SHOWN: Final = 3
_GPU_UUIDS: Final = "devices[].uuid"


class _Cause(NamedTuple):
    """A component that is replaced as a whole.

    A difference in any of ``primary_fields`` shows its change; ``implied_fields`` change with it.
    """

    name: str
    primary_fields: tuple[str, ...]
    implied_fields: tuple[str, ...] = ()


def _environment(names: str) -> tuple[str, ...]:
    return tuple(f"environment.{name}" for name in names.split())


_NODE_IMPLIES: Final = "cpu.model cpu.logical_cores cpu.affinity_cores cpu.quota_cores memory_total_bytes os"
_IMAGE_IMPLIES: Final = "framework.version python_version package_version git_sha"
_FRAMEWORK_IMPLIES: Final = (
    *_environment("cuda_runtime_version cudnn_version"),
    "config.numerics.settings",
    "config.numerics.intra_op_threads",
    "config.numerics.inter_op_threads",
)
_CAUSES: Final = (
    _Cause("image", _environment("image.digest image.ref"), (*_environment(_IMAGE_IMPLIES), *_FRAMEWORK_IMPLIES)),
    _Cause("framework", _environment("framework.version"), _FRAMEWORK_IMPLIES),
    _Cause("driver", _environment("driver_version"), _environment("cuda_driver_version")),
    _Cause("node", _environment("kubernetes.node"), (_GPU_UUIDS, *_environment(_NODE_IMPLIES))),
    _Cause("GPU", (_GPU_UUIDS,)),
    _Cause("power limit", ("devices[].power_limit_w",)),
    _Cause("Python", _environment("python_version")),
    _Cause("package", _environment("package_version git_sha")),
)


def changes(before: Sequence[RunSummary], now: Sequence[RunSummary]) -> list[EnvironmentChange]:
    """The environment fields that differ between ``before`` and ``now``; none if either is empty."""
    old, new = _values_by_field(before), _values_by_field(now)
    return [
        EnvironmentChange(field=field, before=known_values(old[field]), now=known_values(new[field]))
        for field in sorted(old.keys() & new.keys())
        if known_values(old[field]) != known_values(new[field])
    ]


def attribute(environment_changes: Sequence[EnvironmentChange]) -> str:
    """One clause: ``only the driver changed: 550.54 → 570.12``, all causes, or that nothing recorded changed."""
    left = {change.field: change for change in environment_changes}
    causes: list[str] = []
    for cause in _CAUSES:
        primary = next((left[field] for field in cause.primary_fields if field in left), None)
        if primary is not None:
            causes.append(f"{cause.name} changed: {_text(primary)}")
            for field in (*cause.primary_fields, *cause.implied_fields):
                left.pop(field, None)
    causes += [f"{field} changed: {_text(change)}" for field, change in left.items()]
    if not causes:
        return "no recorded setting has changed"
    return f"only the {causes[0]}" if len(causes) == 1 else "; ".join(causes)


def known_values(values: Iterable[Value]) -> list[str]:
    """The distinct ``values`` as text; null only without any other, since a run that ended early has no values."""
    distinct = set(values)
    return sorted(show_value(value) for value in distinct - {None} or distinct)


def _text(change: EnvironmentChange) -> str:
    return f"{join_limited(change.before, _MAX_VALUES_SHOWN)} → {join_limited(change.now, _MAX_VALUES_SHOWN)}"


def _values_by_field(runs: Sequence[RunSummary]) -> dict[str, set[Value]]:
    values: dict[str, set[Value]] = defaultdict(set)
    for compared in {run.compared for run in runs}:
        for field, value in zip(FIELDS, compared, strict=True):
            if field.path in _COMPARED:
                values[field.path].add(value)
    for environment in {run.environment for run in runs}:
        for field, value in zip(ENVIRONMENT, environment, strict=True):
            values[field.path].add(value)
    for gpu_uuids in {run.gpu_uuids for run in runs}:
        values[_GPU_UUIDS].add(", ".join(gpu_uuids) or None)
    return values
