"""Measures runs over several ranks for docs/distributed.md: ``make measure-ranks``.

Equal bits: both frameworks and recipes in float32 and float64 on 1, 2, 4 and 8 ranks of this machine's CPUs, and how
far ``fast`` is from ``exact`` in float64.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from measurement import ENVIRONMENTS, add_output_option, circumstances, run_job, write_part, write_results

from jobs.io.safetensors_file import read_safetensors
from jobs.recipes import RECIPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANKS: Final = (1, 2, 4, 8)
PRECISIONS: Final = ("fp32", "fp64")
BITS_IMAGES: Final = 330
"""Five batches of 64 and one of 10, in which most shards are empty."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_output_option(parser, "ranks")
    arguments = parser.parse_args()
    measured = circumstances()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = write_part(folder / "small", BITS_IMAGES, 100)
        rows = [bits_of(*row, small, folder) for row in product(ENVIRONMENTS, RECIPES, PRECISIONS)]
    write_results(arguments.output, {"bits": rows}, measured=measured)
    return 0


def bits_of(framework: str, recipe: str, precision: str, data: Path, folder: Path) -> dict[str, Any]:
    """The hashes of the weights by number of ranks; in float64 also the largest difference of ``fast``."""
    options = ("--recipe", recipe, "--precision", precision, "--epochs", "2", "--dataset", str(data))
    exact = [train(framework, folder, *options, "--reduction", "exact", "--ranks", str(ranks)) for ranks in RANKS]
    row = {"framework": framework, "recipe": recipe, "precision": precision}
    difference = None
    if precision == "fp64":
        fast = [train(framework, folder, *options, "--reduction", "fast", "--ranks", str(ranks)) for ranks in RANKS[1:]]
        difference = max(distance(exact[0], weights) for weights in fast)
    hashes = {str(ranks): sha256_of(weights) for ranks, weights in zip(RANKS, exact, strict=True)}
    return row | {"weights_sha256": hashes, "fast_largest_difference": difference}


def train(framework: str, folder: Path, *options: str) -> dict[str, NDArray[Any]]:
    """The weights that the run exports."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = Path(name)
        run_job(
            framework, *options, "--telemetry", "off", "--export-dir", str(run / "weights"), report_dir=run / "reports"
        )
        (path,) = (run / "weights").iterdir()
        return read_weights(path)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    return dict(sorted(read_safetensors(path)[1].items()))


def sha256_of(weights: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in weights.values():
        digest.update(array.tobytes())
    return digest.hexdigest()


def distance(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> float:
    """The largest difference of a weight, relative to the largest of its array."""
    return max(float(np.abs(other[name] - array).max() / np.abs(array).max()) for name, array in one.items())


if __name__ == "__main__":
    sys.exit(main())
