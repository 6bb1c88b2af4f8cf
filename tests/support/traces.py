"""Parity traces of real, small trainings, with or without a deliberate fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.comparison.parity import Setting, Trace, pack
from jobs.harness.draw import initial_weights
from jobs.harness.parity import record_parity

if TYPE_CHECKING:
    from jobs.harness.data import DigitSet
    from jobs.harness.trainer import Framework, RunSpec


def record(framework: Framework, spec: RunSpec, digits: DigitSet, steps: int) -> Trace:
    """Train ``steps`` steps from the weights the matched protocol draws.

    The trace's setting is that of the recipe, whatever else of it was tampered with: a fault is what two runs of
    one setting do not share.
    """
    trainer = framework.create_trainer(spec, digits)
    trainer.load_weights(initial_weights(spec.recipe, spec.seed))
    setting = Setting(
        recipe=spec.recipe.name,
        precision=spec.precision,
        seed=spec.seed,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        dataset_sha256=digits.sha256,
    )
    parity = record_parity(trainer, spec, digits, steps)
    return pack(parity, setting, framework=framework.versions().name, run_id="a-run")
