"""Decides which runs may stand side by side, and names every field that forbids it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobs.comparison.fields import ENVIRONMENT, FIELDS, show_value
from jobs.comparison.text import listed
from jobs.errors import BadInput, NotComparable
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema import Why


DATA_FIELD: Final = "config.dataset.sha256"
_FILES_NAMED: Final = 1
_VALUES_NAMED: Final = 10


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field that differs and was let pass: ``values`` by framework, as shown to people."""

    field: str
    why: Why
    values: dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one recipe and protocol, found comparable; ``held_equal`` maps each field to its one value."""

    recipe: str
    protocol: str
    runs: tuple[RunSummary, ...]
    held_equal: dict[str, Value]
    differences: tuple[Difference, ...]


def group(runs: Sequence[RunSummary], *, allow: Iterable[str] = ()) -> tuple[Group, ...]:
    """Sort ``runs`` into groups of one recipe and protocol, each of which can be compared.

    ``allow`` names fields that differ on purpose: they are listed as differences instead of refused.

    Raises:
        BadInput: ``allow`` names a field that is not compared or can never differ.
        NotComparable: fields differ; the message lists every one with its values and where they came from.
    """
    allowed = _allowed(allow)
    refused = _differing_data(runs)
    if refused:
        raise NotComparable(
            f"runs on different data are never compared: {'; '.join(refused)}; "
            "merge each dataset's reports on their own"
        )
    members: dict[tuple[str, str], list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.timed:
            members[run.recipe, run.protocol].append(run)
    groups: list[Group] = []
    fields: set[str] = set()
    for (recipe, protocol), inside in sorted(members.items()):
        found, lines = _check(inside, recipe, protocol, allowed)
        groups.append(found)
        refused += [f"{escape_control_chars(recipe)} {protocol}: {line}" for line in lines.values()]
        fields.update(lines)
    if refused:
        options = " ".join(f"--allow {field}" for field in sorted(fields))
        next_step = f"merge equal runs, or if this is on purpose: {options}"
        if len(refused) == 1:
            raise NotComparable(f"these runs are not comparable: {refused[0]}; {next_step}")
        listed = "".join(f"\n  {line}" for line in refused)
        raise NotComparable(f"these runs are not comparable, {len(refused)} fields differ:{listed}\n{next_step}")
    return tuple(groups)


def _allowed(allow: Iterable[str]) -> frozenset[str]:
    known = [field.path for field in FIELDS]
    allowed = frozenset(allow)
    for name in sorted(allowed):
        if name == DATA_FIELD:
            raise BadInput(f"--allow {name}: runs on different data are never compared; merge them on their own")
        if name not in known:
            raise BadInput(f"--allow {name!r}: no such field is compared; choose one of {', '.join(known)}")
    return allowed


def _differing_data(runs: Iterable[RunSummary]) -> list[str]:
    seen: dict[Value, list[RunSummary]] = defaultdict(list)
    for run in runs:
        seen[run.dataset.sha256].append(run)
    named = {value: f"{escape_control_chars(found[0].dataset.name)} {value}" for value, found in seen.items()}
    return [_difference_line(DATA_FIELD, seen, named)] if len(seen) > 1 else []


def _check(runs: list[RunSummary], recipe: str, protocol: str, allowed: frozenset[str]) -> tuple[Group, dict[str, str]]:
    held_equal: dict[str, Value] = {}
    differences: list[Difference] = []
    refused: dict[str, str] = {}
    for at, field in enumerate(FIELDS):
        seen = _values(runs, [run.compared[at] for run in runs])
        if len(seen) <= 1:
            held_equal[field.path] = next(iter(seen), None)
        elif field.path in allowed:
            differences.append(Difference(field=field.path, why="allowed", values=_by_framework(seen)))
        elif protocol in field.framework_bound and _one_value_a_side(seen):
            differences.append(Difference(field=field.path, why="framework", values=_by_framework(seen)))
        else:
            refused[field.path] = _difference_line(field.path, seen)
    listed = {difference.field for difference in differences}
    for at, field in enumerate(ENVIRONMENT):
        seen = _values(runs, [run.environment[at] for run in runs])
        if len(seen) > 1 and field.path not in listed:
            differences.append(Difference(field=field.path, why="environment", values=_by_framework(seen)))
    found = Group(
        recipe=recipe,
        protocol=protocol,
        runs=tuple(runs),
        held_equal=held_equal,
        differences=tuple(differences),
    )
    return found, refused


def _values(runs: Iterable[RunSummary], values: Iterable[Value]) -> dict[Value, list[RunSummary]]:
    seen: dict[Value, list[RunSummary]] = defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        # A run that ended early may not have come to know its device; what it does not know does not differ.
        if value is not None or run.status in ("completed", "below_reference"):
            seen[value].append(run)
    return seen


def _one_value_a_side(seen: Mapping[Value, Iterable[RunSummary]]) -> bool:
    return all(len(values) == 1 for values in _by_framework(seen).values())


def _by_framework(seen: Mapping[Value, Iterable[RunSummary]]) -> dict[str, tuple[str, ...]]:
    sides: dict[str, set[str]] = defaultdict(set)
    for value, runs in seen.items():
        for run in runs:
            sides[run.framework].add(show_value(value))
    return {framework: tuple(sorted(values)) for framework, values in sorted(sides.items())}


def _difference_line(
    field: str, seen: Mapping[Value, Iterable[RunSummary]], named: Mapping[Value, str] | None = None
) -> str:
    """``field: value (framework: file) ≠ value (framework: file)``, the same whatever the order of the runs."""
    parts: list[str] = []
    for value, runs in seen.items():
        files: dict[str, set[str]] = defaultdict(set)
        for run in runs:
            files[run.framework].add(run.source)
        places = "; ".join(
            f"{framework}: {listed(sorted(names), _FILES_NAMED)}" for framework, names in sorted(files.items())
        )
        parts.append(f"{named[value] if named else escape_control_chars(show_value(value))} ({places})")
    return f"{field}: {listed(sorted(parts), _VALUES_NAMED, ' ≠ ')}"
