"""TensorFlow's thread pools have the sizes that a report names, as the operating system counts their threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobs.io.cpus import usable_cpus
from jobs.mnist_tf.framework import MAX_THREADS
from tests.support.programs import ROOT

PROGRAM = """
import os
from collections import Counter
from pathlib import Path

def threads():
    return Counter(Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task"))

import tensorflow as tf
from jobs.mnist_tf import framework
from jobs.mnist_tf.numerics import effective_numerics

framework.select_device("cpu")
before = threads()
tf.zeros(4)
# The other pool's threads and one more have names; those of operations have the program's.
inter, graph_runner, intra = ((threads() - before)[name] for name in ("tf_Compute", "tf_graph_runner", "python"))
assert graph_runner == 1
# Once the pools exist, another trial changes nothing, and nothing else is read back.
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "9"
framework.select_device("cpu")
numerics = effective_numerics("fp32")
print(intra, inter, numerics.intra_op_threads, numerics.inter_op_threads)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux shows them")
@pytest.mark.parametrize("asked", [None, (3, 5), ("9" * 5000, str(MAX_THREADS + 1))])
def test_threads_that_are_read_back_are_in_force(asked: tuple[int | str, int | str] | None) -> None:
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    if asked is not None:
        environment |= dict(zip(names, map(str, asked), strict=True))
    # The threads take the name of the program's file.
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    # Text that is no number of threads counts as none.
    intra, inter = asked if asked == (3, 5) else (usable_cpus(), usable_cpus())
    assert done.stdout.split() == [str(intra), str(inter), str(intra), str(inter)]
