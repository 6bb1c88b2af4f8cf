"""The training state as arrays, saved to and restored from checkpoints bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.checkpoint.codec import validate_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tensorflow as tf
    from numpy.typing import NDArray


def state_by_name(model: Any, optimizer: Any, loss_total: tf.Variable) -> dict[str, Any]:
    """The state's variables by name; dropout's random state is among the model's variables."""
    groups = {"model": model.variables, "optimizer": optimizer.variables, "metrics": model.metrics_variables}
    variables = {f"{name}/{index}": one for name, group in groups.items() for index, one in enumerate(group)}
    return variables | {"loss_total": loss_total}


def read_state(variables: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Copies of the variables' values."""
    return {name: np.array(variable.numpy()) for name, variable in variables.items()}


def write_state(state: Mapping[str, NDArray[Any]], variables: Mapping[str, Any]) -> None:
    """Restore what :func:`read_state` returned, in place.

    Raises:
        ValueError: the arrays are not those of these variables; nothing was changed.
    """
    validate_arrays(state, read_state(variables))
    for name, variable in variables.items():
        variable.assign(state[name])
