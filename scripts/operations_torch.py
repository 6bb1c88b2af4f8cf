"""Counts the operations of torch's step on a GPU: ``make operations-torch``. No GPU is needed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from measurement import ENVIRONMENTS, ROOT, add_output_option, circumstances, write_results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output_option(parser, "operations_torch")
    arguments = parser.parse_args()
    measured = circumstances()
    python = ROOT / ENVIRONMENTS["torch"][0] / "bin/python"
    command = [python, "-m", "tests.mnist_torch.operations"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    write_results(arguments.output, json.loads(done.stdout.splitlines()[-1]), measured=measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
