"""What the next training step depends on, as arrays: out for a checkpoint and back in to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from jobs.checkpoint.validate import validate_arrays
from jobs.mnist_torch.model import to_canonical
from jobs.mnist_torch.optimizer import FusedMatchedAdam, MatchedAdam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jobs.recipes import Recipe

OPTIMIZER_STATE_KEYS: Final = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    FusedMatchedAdam: ("step", "exp_avg", "exp_avg_sq"),
    MatchedAdam: ("m", "v"),
}
"""What each optimizer keeps for a weight; torch's own make theirs in the first step."""

AVERAGE_SLOTS: Final = frozenset({"momentum_buffer", "exp_avg", "m"})
"""The slots that hold a running average of gradients."""


def read_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, others: Mapping[str, Tensor]
) -> dict[str, NDArray[Any]]:
    """Copies of all of it; ``others`` are the trainer's own tensors."""
    tensors = _tensors(model, optimizer, others) | _random_states(_device(model))
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


@torch.no_grad()
def write_state(
    state: Mapping[str, NDArray[Any]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Tensor],
) -> None:
    """Take up what :func:`read_state` returned, in place.

    Raises:
        ValueError: the arrays are not those of this model and optimizer; nothing was changed.
    """
    tensors = _tensors(model, optimizer, others)
    random_states = _random_states(_device(model))
    validate_arrays(state, {name: tensor.detach().cpu().numpy() for name, tensor in (tensors | random_states).items()})
    _check_values(state)
    for name, tensor in tensors.items():
        tensor.copy_(torch.from_numpy(np.array(state[name])))
    torch.set_rng_state(torch.from_numpy(np.array(state["random/cpu"])))
    if "random/gpu" in random_states:
        torch.cuda.set_rng_state(torch.from_numpy(np.array(state["random/gpu"])), _device(model))


def _check_values(state: Mapping[str, NDArray[Any]]) -> None:
    """Any number may be a weight, but not an index or a generator's state."""
    if not np.array_equal(np.sort(state["order"]), np.arange(len(state["order"]))):
        raise ValueError("its order does not have each example once")
    for name, device in {"random/cpu": "cpu", "random/gpu": "cuda"}.items():
        if name in state:
            try:
                torch.Generator(device).set_state(torch.from_numpy(np.array(state[name])))
            except RuntimeError as error:
                raise ValueError(f"{name} is no state of torch's random numbers ({error})") from error


def read_gradient_average(
    model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> dict[str, NDArray[np.float64]]:
    """The running average of gradients (momentum or Adam's m) of each weight, in the canonical layout."""
    name = next(slot for slot in OPTIMIZER_STATE_KEYS[type(optimizer)] if slot in AVERAGE_SLOTS)
    return to_canonical((_slots(optimizer, weight)[name] for weight in model.parameters()), recipe)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer, others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(others)
    for index, weight in enumerate(model.parameters()):
        found[f"weights/{index}"] = weight
        for slot, tensor in _slots(optimizer, weight).items():
            found[f"optimizer/{slot}/{index}"] = tensor
    for group in optimizer.param_groups:
        found |= {f"optimizer/{name}": value for name, value in group.items() if isinstance(value, torch.Tensor)}
    return found


def _slots(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    """The optimizer's own tensors of ``weight``, made as its first step would if that has not come: all begin at zero.

    All at once, since the first step makes none where it finds one.
    """
    kept = optimizer.state[weight]
    for slot in OPTIMIZER_STATE_KEYS[type(optimizer)]:
        if kept.get(slot) is None:
            on_device = slot != "step" or optimizer.param_groups[0].get("capturable")
            kept[slot] = (
                torch.zeros((), dtype=torch.float32, device=weight.device if on_device else "cpu")
                if slot == "step"
                else torch.zeros_like(weight, memory_format=torch.preserve_format)
            )
    return {slot: kept[slot] for slot in OPTIMIZER_STATE_KEYS[type(optimizer)]}


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Where dropout's numbers come from."""
    found = {"random/cpu": torch.get_rng_state()}
    return found | {"random/gpu": torch.cuda.get_rng_state(device)} if device.type == "cuda" else found
