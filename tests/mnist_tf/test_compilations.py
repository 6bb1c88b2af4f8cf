"""XLA compiles for every batch before the first step is reported, so that steady training has no compilation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jobs.adapter import RunSpec
from jobs.mnist_tf.trainer import TensorFlowTrainer
from jobs.recipes import LENET
from jobs.training.seeding import epoch_order, initial_weights
from tests.support.compilations import EPOCHS_AND_BATCH_SIZES
from tests.support.digits import small_digits
from tests.support.programs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PROGRAM = """
import json
import sys
from pathlib import Path

from jobs.mnist_tf.cli import PROGRAM
framework = PROGRAM.load_framework()
from jobs.adapter import RunSpec
from jobs.recipes import LENET
from jobs.training.seeding import epoch_order
from tests.support.digits import small_digits

framework.select_device("cpu")
dump, input_path, images, done = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def compiled():
    return len(list(dump.glob("*.before_optimizations.txt")))

spec = RunSpec.for_recipe(LENET, device="cpu", execution="compiled").replace(input=input_path)
data = small_digits(train=images, test=1010)
trainer = framework.create_trainer(spec, data)
counts = []
for epoch in (1, 2):
    order = epoch_order(1, epoch, images)
    trainer.train_epoch(order, lambda _: counts.append(compiled()), epoch=epoch, done=done if epoch == 1 else 0)
    trainer.evaluate(data.test_images, data.test_labels)
    counts.append(compiled())
print(json.dumps(counts))
"""


@pytest.mark.slow
@EPOCHS_AND_BATCH_SIZES
def test_compilations_are_complete_after_the_first_step(
    input_path: str, images: int, done: int, sizes: int, tmp_path: Path
) -> None:
    # XLA writes a file for each program that it compiles.
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text",
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), input_path, str(images), str(done)]
    program = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    counts = json.loads(program.stdout)
    assert counts == [sizes] * len(counts)


@pytest.mark.slow
def test_compiling_before_the_first_step_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, velocities and loss are those of a training without it."""
    digits = small_digits(train=2 * 64 + 8, test=10)
    spec = RunSpec.for_recipe(LENET, device="cpu", execution="compiled").replace(input="streamed")

    def train() -> dict[str, NDArray[np.generic]]:
        trainer = TensorFlowTrainer(spec, digits)
        trainer.load_weights(initial_weights(spec.recipe, 1))
        loss = trainer.train_epoch(epoch_order(1, 1, 2 * 64 + 8), lambda _: None, epoch=1)
        return trainer.state() | {"loss": np.array(loss)}

    with_it = train()
    monkeypatch.setattr(TensorFlowTrainer, "_compile_batch_sizes", lambda _: None)
    without = train()
    assert with_it.keys() == without.keys()
    assert [name for name in with_it if with_it[name].tobytes() != without[name].tobytes()] == []
