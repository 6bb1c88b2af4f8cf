"""Runs of simulated experiments: copies of a real summary with other measurements."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.comparison.input.metrics import METRICS, pack_measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.comparison.input.run_summary import RunSummary
    from jobs.comparison.schema_base import MetricName


def with_values(run: RunSummary, values: Mapping[MetricName, float], **changes: Any) -> RunSummary:
    """A copy of ``run`` with ``values`` of metrics and ``changes`` of fields."""
    measured = {metric.name: run.measured(metric.name) for metric in METRICS}
    packed_measured, missing = pack_measured({**measured, **values})
    return replace(run, packed_measured=packed_measured, missing=missing, **changes)
