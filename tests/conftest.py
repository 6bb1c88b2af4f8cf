from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

REAL_MNIST = os.environ.get("MNIST_DATA_DIR")
"""Read before any test changes the environment."""

# Programs started here write as they do for most people: through a buffer that is flushed once more at their end.
os.environ.pop("PYTHONUNBUFFERED", None)

# Two processes of tests share the CPUs. If torch's threads waited in a busy loop, the tests would take twice as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """The folder with MNIST's four files; tests that take it are marked ``mnist``."""
    if not REAL_MNIST:
        pytest.skip("MNIST_DATA_DIR is not set: make test-mnist runs this with the four real files")
    return Path(REAL_MNIST)
