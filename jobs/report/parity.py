"""The part of the report that holds a parity trace."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from jobs.choices import DeviceKind, Execution, InputPath, Precision  # noqa: TC001 - pydantic reads them
from jobs.report.configuration import Amount, Model, Number, Sha256, added

MIN_ROUNDING_STATES: Final = 8
"""A coarser precision is judged from at least so many states, so that one outlier does not move the lower quartile."""


class ParityStep(Model):
    loss: float
    grad_norm: float = Field(description="Euclidean norm over all parameters")


class ParityPath(Model):
    """The training code that was traced."""

    execution: Execution
    input: InputPath
    precision: Precision
    device: DeviceKind


class RoundingState(Model):
    """How far one step in the run's precision is from the same step in float64, both from one common state.

    Each error is the Euclidean norm of the difference over that of the float64 result.
    """

    step: Number = Field(description="the step that was taken; the state is the one before it")
    loss: Amount
    logits: Amount
    gradients: dict[str, Amount] = Field(description="by weight")
    updates: dict[str, Amount] = Field(description="what the optimizer adds, by weight")


class Parity(Model):
    """A trace for proving that both frameworks compute the same thing; dropout's rate is 0."""

    path: ParityPath | None = added("null in reports before schema 1.2, whose trace was an eager step of its own")
    steps: list[ParityStep] = Field(description="in float64, whatever the run's precision is (from schema 1.2 on)")
    initial_weights_sha256: Sha256
    first_logits: list[list[float]] = Field(description="batch x 10, evaluation mode, before the first step")
    weight_norms: dict[str, float] = Field(description="Euclidean norm of each weight after the last step")
    rounding: list[RoundingState] | None = added("null where the run itself is in float64")
