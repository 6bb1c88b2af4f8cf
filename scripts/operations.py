"""Counts what a step starts on a GPU: ``make operations-tf``, ``make operations-torch``. No GPU is needed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from measurement import ENVIRONMENTS, RESULTS, ROOT, circumstances, write_results

MODULES = {"tensorflow": "tests.mnist_tf.operations", "torch": "tests.mnist_torch.operations"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=sorted(MODULES))
    framework = parser.parse_args().framework
    measured = circumstances()
    python = ROOT / ENVIRONMENTS[framework][0] / "bin/python"
    command = [python, "-m", MODULES[framework]]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    output = RESULTS / f"operations_{framework}.json"
    write_results(output, json.loads(done.stdout.splitlines()[-1]), measured=measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
