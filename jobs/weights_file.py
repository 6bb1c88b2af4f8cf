"""Trained weights as safetensors files. Reading them runs no code, and each framework reads the other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors.numpy import save

from jobs.errors import BadInput, NotWritable
from jobs.io.atomic_file import write_file
from jobs.io.safetensors_file import read_safetensors
from jobs.recipes import RECIPES, weight_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from jobs.recipes import Recipe

FORMAT: Final = "mnist-jobs weights 1"


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    recipe: Recipe
    run_id: str
    weights: dict[str, NDArray[np.float64]]


def weights_path(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.safetensors"


def write_weights_file(
    folder: Path, *, run_id: str, recipe: Recipe, weights: Mapping[str, NDArray[np.float64]], dtype: str
) -> Path:
    """Write ``<run_id>.safetensors`` into ``folder``, complete or not at all, and return its path.

    Arrays are in the canonical layout of :class:`~jobs.recipes.WeightShape`, of ``dtype``.

    Raises:
        NotWritable: the folder cannot be made or written to.
    """
    metadata = {"format": FORMAT, "recipe": recipe.name, "run_id": run_id}
    content = save({name: array.astype(dtype) for name, array in weights.items()}, metadata=metadata)
    path = weights_path(folder, run_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(content, path)
    except OSError as error:
        raise NotWritable(
            f"weights cannot be written to {str(folder)!r} ({error.strerror or error}); choose another --export-dir"
        ) from error
    return path


def read_weights_file(path: Path) -> TrainedWeights:
    """Read what :func:`write_weights_file` wrote.

    Raises:
        BadInput: the file is missing, is no safetensors file, or does not hold a known recipe's weights.
    """
    if not path.is_file():
        raise BadInput(f"no weights file {str(path)!r}; train with --export-dir to make one")
    try:
        metadata, arrays = read_safetensors(path)
        weights = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    except (ValueError, TypeError) as error:
        raise BadInput(f"{str(path)!r} cannot be used: {error}; other formats can run code and are not read") from error
    recipe = RECIPES.get(metadata.get("recipe", ""))
    if metadata.get("format") != FORMAT or recipe is None:
        raise BadInput(
            f"{str(path)!r} was not written by this project's train --export-dir: {metadata or 'no metadata'}"
        )
    expected = {shape.name: shape.shape for shape in weight_shapes(recipe)}
    found = {name: array.shape for name, array in weights.items()}
    if found != expected:
        raise BadInput(f"{str(path)!r} does not hold the weights of {recipe.name}: expected {expected}, found {found}")
    return TrainedWeights(recipe=recipe, run_id=metadata.get("run_id", ""), weights=weights)
