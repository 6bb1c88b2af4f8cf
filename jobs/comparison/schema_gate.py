"""The models of the comparison with a baseline in comparison.json."""

from typing import Literal

from jobs.choices import FrameworkName
from jobs.comparison.schema_base import MetricName, OfOneSetting, Part

GateOutcome = Literal["regression", "incomparable", "improvement", "unchanged"]


class EnvironmentChange(Part):
    """A field around a framework's runs that differs from the baseline; both sides' values as shown to people."""

    field: str
    before: list[str]
    now: list[str]


class GateMetric(Part):
    """One metric now against the baseline.

    ``change`` and ``tolerated`` are shares of the baseline's median, or differences where ``unit`` is ``ratio``.
    ``tolerated`` is the size of the tolerated change in the direction of ``change``. A change for the worse of size
    ``visible`` would have been found with a probability of 0.9. ``p_value`` is the one-sided p of a change for the
    worse before Holm's correction, 1 for a change too small to count. All are ``null`` where there is too little to
    compare. Where runs are of several sessions, the medians are over the sessions' medians. ``unseen``: more than
    15 % would have to be tolerated.
    """

    name: MetricName
    unit: str
    n_before: int
    n_now: int
    sessions_before: int
    sessions_now: int
    median_before: float | None
    median_now: float | None
    change: float | None = None
    tolerated: float | None = None
    visible: float | None = None
    p_value: float | None = None
    outcome: Literal["worse", "better", "within", "unseen", "not_measured"] = "not_measured"


class GateSide(OfOneSetting):
    """One framework's runs of a recipe, protocol and setting of ranks, now against the baseline.

    ``suspect_before`` and ``suspect_now`` count completed runs that are left out, as their reports call them suspect.
    """

    framework: FrameworkName
    outcome: GateOutcome
    text: str
    runs_before: int
    runs_now: int
    suspect_before: int
    suspect_now: int
    metrics: list[GateMetric]
    changes: list[EnvironmentChange]


class Gate(Part):
    """Now against the baseline; the outcome is the worst of the sides', ``triage`` says where to look first.

    ``false_alarms_ratio`` is the highest rate at which unchanged runs are called a regression, by any metric.
    """

    outcome: GateOutcome
    false_alarms_ratio: float
    sides: list[GateSide]
    triage: list[str]
