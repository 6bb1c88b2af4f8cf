"""The command that answers a confounded comparison: both frameworks in randomised blocks on one device."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from jobs.comparison.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobs.choices import FrameworkName
    from jobs.comparison.fields import Value
    from jobs.comparison.input.run_summary import RunSummary

_OPTIONS: Final = {
    "--epochs": "config.epochs",
    "--batch-size": "config.batch_size",
    "--learning-rate": "config.learning_rate",
    "--precision": "config.precision",
    "--execution": "config.execution",
    "--input": "config.input",
    "--repeat": "config.repeat",
}
"""Options of ``train`` that reach the speed, and the compared field of each."""

_DEFAULTS: Final[dict[str, dict[str, Value]]] = {
    "matched": {"--precision": "fp32", "--input": "resident", "--repeat": 1},
    "published": {"--precision": "fp32", "--input": "streamed", "--repeat": 1},
}
"""By protocol: defaults that every recipe has. The other options' defaults are each recipe's, so they are given."""

_FIELD_AT: Final = {field.path: at for at, field in enumerate(FIELDS)}


def duel_command(sides: Mapping[FrameworkName, Sequence[RunSummary]]) -> str:
    """The command that runs both frameworks in randomised blocks, as the runs of ``sides`` ran.

    An option whose value is not the same in all runs is left out: a duel gives both frameworks the same options.
    """
    runs = [run for side in sides.values() for run in side]
    if any(run.node is not None for run in runs):
        return "kubectl apply -k k8s/overlays/duel"
    gpu = " --gpu 0" if any(run.gpu_uuids for run in runs) else ""
    train = shlex.join(["--recipe", runs[0].recipe, "--protocol", runs[0].protocol, *_train_options(runs)])
    return f".venv/bin/python scripts/duel.py duel{gpu} --blocks 10 -- {train}"


def _train_options(runs: Sequence[RunSummary]) -> Iterator[str]:
    data = runs[0].dataset.name
    if data != "mnist":
        # The report has the folder's name only.
        folder = data.removeprefix("idx:")
        yield from ("--dataset", data if folder == data else f"./{folder}")
    setting = runs[0].rank_setting
    if setting.is_several:
        yield from ("--ranks", str(setting.ranks))
    yield from (("--reduction", setting.reduction) if setting.reduction is not None else ())
    yield from (("--scaling", setting.scaling) if setting.scaling is not None else ())
    for option, path in _OPTIONS.items():
        values = {run.compared[_FIELD_AT[path]] for run in runs if run.has_report}
        if len(values) == 1 and values.isdisjoint({None, _DEFAULTS[runs[0].protocol].get(option)}):
            value = values.pop()
            if option == "--batch-size" and setting.scaling == "weak":
                value = int(value or 0) // setting.ranks
            yield from (option, str(value))
