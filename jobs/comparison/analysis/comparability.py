"""Groups comparable runs, and names every field in which others differ."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal

from jobs.comparison.fields import ENVIRONMENT, FIELDS, show_value
from jobs.comparison.input.metrics import TRAINED_TO_THE_END
from jobs.comparison.schema import FieldDifference
from jobs.comparison.text import join_limited
from jobs.errors import BadInput, NotComparable
from jobs.io.stdio import escape_control_chars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.rank_setting import RankSetting

    RunsByValue = Mapping[Value, Sequence[RunSummary]]

DATA_FIELD: Final = "config.dataset.sha256"
SEED_FIELD: Final = "config.seed"
_MAX_FILES_SHOWN: Final = 1
_MAX_VALUES_SHOWN: Final = 10


@dataclass(frozen=True, kw_only=True)
class Group:
    """Comparable runs of one recipe, protocol and setting of ranks.

    ``held_equal`` maps each compared field to its one value.
    """

    recipe: str
    protocol: Literal["matched", "published"]
    setting: RankSetting
    runs: list[RunSummary]
    held_equal: dict[str, Value]
    differences: list[FieldDifference]


def group_comparable(runs: Sequence[RunSummary], *, allow: Iterable[str] = ()) -> list[Group]:
    """Sort ``runs`` into groups of one recipe, protocol and setting of ranks, each of which can be compared.

    ``allow`` names fields that differ on purpose: they are listed as differences instead of refused.

    Raises:
        BadInput: ``allow`` names a field that is not compared or can never differ.
        NotComparable: fields differ, and the message lists every one with its values and where they came from; or
            there are more than two frameworks.
    """
    allowed = _allowed(allow)
    _refuse_different_data(runs)
    members: dict[tuple[str, Literal["matched", "published"], RankSetting], list[RunSummary]] = defaultdict(list)
    for run in runs:
        if run.has_training:
            members[run.recipe, run.protocol, run.rank_setting].append(run)
    groups: list[Group] = []
    refused: list[str] = []
    fields: set[str] = set()
    for (recipe, protocol, setting), inside in sorted(members.items()):
        title = escape_control_chars(", ".join(filter(None, (f"{recipe} {protocol}", setting.label))))
        frameworks = sorted({run.framework for run in inside})
        if len(frameworks) > 2:
            raise NotComparable(
                f"{title} has runs of {', '.join(frameworks)}, a verdict compares "
                "two frameworks; merge two of them at a time"
            )
        held_equal, differences, lines = _check_fields(inside, protocol, allowed)
        groups.append(
            Group(
                recipe=recipe,
                protocol=protocol,
                setting=setting,
                runs=inside,
                held_equal=held_equal,
                differences=differences,
            )
        )
        refused += [f"{title}: {line}" for line in lines.values()]
        fields.update(lines)
    if refused:
        options = " ".join(f"--allow {field}" for field in sorted(fields))
        next_step = f"merge equal runs, or if this is on purpose: {options}"
        if len(refused) == 1:
            raise NotComparable(f"these runs are not comparable: {refused[0]}; {next_step}")
        lines_text = "".join(f"\n  {line}" for line in refused)
        raise NotComparable(f"these runs are not comparable, {len(refused)} fields differ:{lines_text}\n{next_step}")
    return groups


def _allowed(allow: Iterable[str]) -> frozenset[str]:
    known = [field.path for field in FIELDS]
    allowed = frozenset(allow)
    for name in sorted(allowed):
        if name == DATA_FIELD:
            raise BadInput(f"--allow {name}: runs on different data are never compared; merge them on their own")
        if name not in known:
            raise BadInput(f"--allow {name!r}: no such field is compared; choose one of {', '.join(known)}")
    return allowed


def _refuse_different_data(runs: Sequence[RunSummary]) -> None:
    if len({run.dataset.sha256 for run in runs}) > 1:
        datasets = _by_value(runs, [f"{run.dataset.name} {run.dataset.sha256}" for run in runs])
        raise NotComparable(
            f"runs on different data are never compared: {_refusal(DATA_FIELD, datasets)}; "
            "merge each dataset's reports on their own"
        )


def _check_fields(
    runs: Sequence[RunSummary], protocol: str, allowed: frozenset[str]
) -> tuple[dict[str, Value], list[FieldDifference], dict[str, str]]:
    """The values equal in all ``runs``, the allowed differences, and a line for each refused field."""
    held_equal: dict[str, Value] = {}
    differences: dict[str, FieldDifference] = {}
    refused: dict[str, str] = {}
    for at, field in enumerate(FIELDS):
        by_value = _by_value(runs, [run.compared[at] for run in runs])
        if field.may_be_unknown:
            by_value.pop(None, None)
        if len(by_value) <= 1:
            held_equal[field.path] = next(iter(by_value), None)
            continue
        values = _by_framework(by_value)
        if field.path in allowed:
            differences[field.path] = FieldDifference(field=field.path, why="allowed", values=values)
        elif protocol in field.framework_bound and all(len(shown) == 1 for shown in values.values()):
            differences[field.path] = FieldDifference(field=field.path, why="framework", values=values)
        else:
            refused[field.path] = _refusal(field.path, by_value)
    for at, field in enumerate(ENVIRONMENT):
        by_value = _by_value(runs, [run.environment[at] for run in runs])
        if len(by_value) > 1 and field.path not in differences:
            values = _by_framework(by_value)
            differences[field.path] = FieldDifference(field=field.path, why="environment", values=values)
    seeds = {framework: _seeds(runs, framework) for framework in sorted({run.framework for run in runs})}
    if len({*map(tuple, seeds.values())}) > 1:
        differences[SEED_FIELD] = FieldDifference(field=SEED_FIELD, why="seeds", values=dict(seeds))
    return held_equal, list(differences.values()), refused


def _seeds(runs: Iterable[RunSummary], framework: str) -> list[str]:
    """The set of a side's seeds, as ranges in their order: ``1 to 5``, ``7``."""
    seeds = sorted({run.seed for run in runs if run.framework == framework})
    # Inside a range, a seed and its position differ by the same number.
    ranges = [[seed for _, seed in part] for _, part in groupby(enumerate(seeds), key=lambda pair: pair[1] - pair[0])]
    return [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in ranges]


def _by_value(runs: Iterable[RunSummary], values: Iterable[Value]) -> dict[Value, list[RunSummary]]:
    by_value: dict[Value, list[RunSummary]] = defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        # A run that ended early may lack values, such as its device's; a missing value is no difference.
        if value is not None or run.status in TRAINED_TO_THE_END:
            by_value[value].append(run)
    return by_value


def _by_framework(by_value: RunsByValue) -> dict[str, list[str]]:
    shown: dict[str, set[str]] = defaultdict(set)
    for value, runs in by_value.items():
        for run in runs:
            shown[run.framework].add(show_value(value))
    return {framework: sorted(values) for framework, values in sorted(shown.items())}


def _refusal(field: str, by_value: RunsByValue) -> str:
    """``field: value (framework: file) ≠ value (framework: file)``, independent of the runs' order."""
    parts: list[str] = []
    for value, runs in by_value.items():
        files: dict[str, set[str]] = defaultdict(set)
        for run in runs:
            files[run.framework].add(run.source)
        sources = "; ".join(
            f"{framework}: {join_limited(sorted(names), _MAX_FILES_SHOWN)}"
            for framework, names in sorted(files.items())
        )
        parts.append(f"{escape_control_chars(show_value(value))} ({sources})")
    return f"{field}: {join_limited(sorted(parts), _MAX_VALUES_SHOWN, ' ≠ ')}"
