"""The models of comparison.json that say what the parity traces show."""

from typing import Literal, Self

from jobs.choices import FrameworkName
from jobs.comparison.schema_base import Part
from jobs.report.schema import Report

QuantityName = Literal["first_logits", "loss", "grad_norm", "weight_norms"]
RoundedQuantity = Literal["loss", "logits", "gradient", "update"]
ParityOutcome = Literal["agree", "differ", "rounds_too_coarsely", "initial_weights_differ", "not_judged"]


class ParityQuantity(Part):
    """How far one quantity of two traces is apart; steps count from 1, and 0 is before the first.

    ``null`` with a ``reason`` where it could not be compared; ``where`` names the weight furthest apart.
    """

    name: QuantityName
    largest_relative_difference: float | None = None
    at_step: int | None = None
    where: str | None = None
    first_step_past_tolerance: int | None = None
    reason: str | None = None


class TrainingCode(Part):
    """The code that a run trained with. A parity trace says something about a run only where it went through this."""

    framework_version: str
    package_version: str
    precision: str
    execution: str
    input: str
    device: str

    @classmethod
    def of(cls, report: Report) -> Self:
        """The code that trained the run of ``report``."""
        return cls(
            framework_version=report.environment.framework.version,
            package_version=report.environment.package_version,
            **report.config.model_dump(include={"precision", "execution", "input", "device"}),
        )


class RoundingCheck(Part):
    """One quantity of one framework's trace, its precision against float64, over ``states`` states.

    Errors are relative. ``usual_error`` is the lower quartile, so three of four states have at least that error.
    """

    framework: FrameworkName
    quantity: RoundedQuantity
    weight: str | None
    states: int
    usual_error: float
    usual_bound: float
    largest_error: float
    largest_bound: float
    largest_at_step: int
    within: bool


class ParitySetting(Part):
    """What two traces must share to be paired; parity is to find everything else that differs."""

    recipe: str
    precision: str
    seed: int
    batch_size: int
    learning_rate: float
    dataset_sha256: str


class ParityPair(ParitySetting):
    """The traces of one setting in two frameworks; ``reason`` says why they are not judged.

    ``quantities`` compare the frameworks' float64 steps, ``rounding`` each framework's precision with its own float64.
    """

    runs: dict[FrameworkName, str]
    traced_code: dict[FrameworkName, TrainingCode]
    steps: int
    tolerance_ratio: float | None
    outcome: ParityOutcome
    text: str
    largest_relative_difference: float | None
    first_step_past_tolerance: int | None
    first_quantity_past_tolerance: QuantityName | None
    quantities: list[ParityQuantity]
    rounding: list[RoundingCheck]
    reason: str | None


class UnpairedTrace(Part):
    """A parity trace of a setting that no other framework was traced with."""

    framework: FrameworkName
    run_id: str
    recipe: str
    precision: str
    seed: int


class SectionParity(Part):
    """What the parity traces say about a section's runs."""

    outcome: Literal["agree", "differ", "not_shown", "not_expected"]
    text: str
