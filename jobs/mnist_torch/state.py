"""The training state as arrays, saved to and restored from checkpoints bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from jobs.checkpoint.codec import validate_arrays
from jobs.mnist_torch.optimizer import FusedMatchedAdam, MatchedAdam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

OPTIMIZER_STATE_KEYS: Final = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: ("exp_avg", "exp_avg_sq", "step"),
    FusedMatchedAdam: ("exp_avg", "exp_avg_sq", "step"),
    MatchedAdam: ("m", "v"),
}
"""What each optimizer keeps for a weight, the running average of gradients first."""


def state_by_name(model: nn.Module, optimizer: torch.optim.Optimizer, extra: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state's tensors by name, with ``extra``; the random states, which dropout uses, are copies."""
    tensors = dict(extra)
    for index, weight in enumerate(model.parameters()):
        tensors[f"weights/{index}"] = weight
        for key, tensor in _optimizer_state(optimizer, weight).items():
            tensors[f"optimizer/{key}/{index}"] = tensor
    for group in optimizer.param_groups:
        tensors |= {f"optimizer/{key}": value for key, value in group.items() if isinstance(value, torch.Tensor)}
    tensors["random/cpu"] = torch.get_rng_state()
    if tensors["weights/0"].is_cuda:
        tensors["random/gpu"] = torch.cuda.get_rng_state()
    return tensors


def _optimizer_state(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    """The optimizer's tensors of ``weight``.

    torch's optimizers create them, all zero, in the first step, unless one exists. Before it they are created here.
    """
    state = optimizer.state[weight]
    for key in OPTIMIZER_STATE_KEYS[type(optimizer)]:
        if state.get(key) is not None:
            continue
        if key == "step":
            on_device = optimizer.param_groups[0]["capturable"]
            state[key] = torch.zeros((), dtype=torch.float32, device=weight.device if on_device else "cpu")
        else:
            state[key] = torch.zeros_like(weight, memory_format=torch.preserve_format)
    return {key: state[key] for key in OPTIMIZER_STATE_KEYS[type(optimizer)]}


def gradient_averages(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The optimizer's running average of gradients (momentum or Adam's m) of each weight."""
    key = OPTIMIZER_STATE_KEYS[type(optimizer)][0]
    return [_optimizer_state(optimizer, weight)[key] for weight in model.parameters()]


def read_state(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Copies of the tensors' values."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


@torch.no_grad()
def write_state(state: Mapping[str, NDArray[Any]], tensors: Mapping[str, Tensor]) -> None:
    """Restore what :func:`read_state` returned, in place.

    Raises:
        ValueError: the arrays are not those of these tensors; nothing was changed.
    """
    validate_arrays(state, read_state(tensors))
    _check_values(state)
    for name, tensor in tensors.items():
        value = torch.from_numpy(np.array(state[name]))
        if name == "random/cpu":
            torch.set_rng_state(value)
        elif name == "random/gpu":
            torch.cuda.set_rng_state(value)
        else:
            tensor.copy_(value)


def _check_values(state: Mapping[str, NDArray[Any]]) -> None:
    """Check the order and the generators' states, for which not every number is valid."""
    if not np.array_equal(np.sort(state["order"]), np.arange(len(state["order"]))):
        raise ValueError("its order does not have each example once")
    for name, device in {"random/cpu": "cpu", "random/gpu": "cuda"}.items():
        if name in state:
            try:
                torch.Generator(device).set_state(torch.from_numpy(np.array(state[name])))
            except RuntimeError as error:
                raise ValueError(f"{name} is no state of torch's random numbers ({error})") from error
