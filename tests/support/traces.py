"""Parity traces of real, small trainings, with or without a deliberate fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.comparison.analysis.parity import Trace, pack
from jobs.comparison.schema_parity import ParitySetting, TrainingCode
from jobs.training.parity_trace import record_parity

if TYPE_CHECKING:
    from typing import Any

    from jobs.adapter import Framework, RunSpec
    from jobs.choices import FrameworkName
    from jobs.datasets import ImageDataset
    from jobs.report.schema import Parity


def record(framework: Framework, spec: RunSpec, digits: ImageDataset, steps: int) -> Trace:
    """Trace ``steps`` steps from the weights that the matched protocol draws.

    The trace's setting is that of the recipe, whatever else of it was tampered with: a fault is what two runs of
    one setting do not share.
    """
    parity = record_parity(lambda traced: framework.create_trainer(traced, digits), spec, digits, steps)
    return packed(
        parity,
        framework=framework.versions().name,
        recipe=spec.recipe.name,
        precision=spec.precision,
        seed=spec.seed,
        batch_size=spec.batch_size,
        dataset_sha256=digits.sha256,
    )


def packed(parity: Parity, *, framework: FrameworkName, **setting: Any) -> Trace:
    """A trace of release 1 of the framework and of this package."""
    assert parity.path is not None
    code = TrainingCode(framework_version="1", package_version="1", **parity.path.model_dump())
    setting = {"learning_rate": 0.001, **setting}
    return pack(parity, ParitySetting(**setting), framework=framework, run_id=f"{framework}-run", code=code)
