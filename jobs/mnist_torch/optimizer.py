"""The recipe's optimizer: torch's own under ``published``, the arithmetic of :mod:`jobs.recipes` under ``matched``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import _foreach_add_, _foreach_div_, _foreach_lerp_, _foreach_mul, _foreach_sqrt, _foreach_sub_

from jobs.recipes import Sgd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.adapter import RunSpec
    from jobs.recipes import Adam


class MatchedAdam(torch.optim.Optimizer):
    """The matched form of :class:`jobs.recipes.Adam`: one operation for all weights at a time.

    The scalar factor of each step is computed in float64 beforehand, so that a captured step only reads it.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], learning_rate: float, recipe: Adam) -> None:
        super().__init__(params, {"learning_rate": learning_rate, **asdict(recipe)})
        (self._group,) = self.param_groups
        weights = self._group["params"]
        # A tensor on the device, so that a captured graph increments it in each replay.
        self._group["t"] = torch.zeros((), dtype=torch.float64, device=weights[0].device)
        self._factors = _step_factors(learning_rate, recipe).to(weights[0].device, weights[0].dtype)
        for weight in weights:
            self.state[weight] = {"m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # noqa: ARG002 - no closure is ever given
        group, weights = self._group, self._group["params"]
        gradients = [weight.grad for weight in weights]
        m, v = ([self.state[weight][key] for weight in weights] for key in ("m", "v"))
        t = group["t"].add_(1).clamp(max=len(self._factors) - 1).long()
        factor = self._factors.index_select(0, t).squeeze(0)
        _foreach_lerp_(m, gradients, 1 - group["beta_1"])
        _foreach_lerp_(v, _foreach_mul(gradients, gradients), 1 - group["beta_2"])
        denominators = _foreach_sqrt(v)
        _foreach_add_(denominators, group["epsilon"])
        updates = _foreach_mul(m, factor)
        _foreach_div_(updates, denominators)
        _foreach_sub_(weights, updates)


def _step_factors(learning_rate: float, recipe: Adam) -> torch.Tensor:
    """By step t from 1: ``learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)``, float64; entry 0 is not used.

    The last entry is that of all later steps too: there both powers are too small to change 1 in float64.
    """
    powers = [(recipe.beta_1, recipe.beta_2)]
    while 1 - powers[-1][0] < 1 or 1 - powers[-1][1] < 1:
        t = len(powers) + 1
        powers.append((recipe.beta_1**t, recipe.beta_2**t))
    beta_1_t, beta_2_t = torch.tensor(powers, dtype=torch.float64).T
    factors = learning_rate * torch.sqrt(1 - beta_2_t) / (1 - beta_1_t)
    return torch.cat([factors.new_zeros(1), factors])


class FusedMatchedAdam(torch.optim.Adam):
    """The same form with torch's fused kernel, which reads the memory once; for CPUs.

    torch divides ``sqrt(v)`` by ``c = sqrt(1 - beta_2^t)`` before it adds epsilon. With epsilon also divided by ``c``
    both forms are equal: ``(sqrt(v) + epsilon) / c = sqrt(v) / c + epsilon / c``. ``c`` changes with each step, which
    a captured graph does not support.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], learning_rate: float, recipe: Adam) -> None:
        betas = (recipe.beta_1, recipe.beta_2)
        super().__init__(params, lr=learning_rate, betas=betas, eps=recipe.epsilon, fused=True)
        self._epsilon = recipe.epsilon

    def step(self, closure: None = None) -> None:  # type: ignore[override] # noqa: ARG002 - no closure is ever given
        for group in self.param_groups:
            steps_done = int(self.state[group["params"][0]].get("step", 0))
            group["eps"] = self._epsilon / math.sqrt(1 - group["betas"][1] ** (steps_done + 1))
        super().step()


def build_optimizer(spec: RunSpec, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    recipe, learning_rate = spec.recipe.optimizer, spec.learning_rate
    # One kernel for all weights: several times faster on a CPU. The streamed path remains torch's usual code.
    fused = spec.protocol == "matched" and spec.input == "resident"
    if isinstance(recipe, Sgd):
        # torch's own SGD is the matched form: v = momentum v + g, w -= lr v.
        return torch.optim.SGD(params, lr=learning_rate, momentum=recipe.momentum, fused=fused)
    if spec.protocol == "matched":
        return (FusedMatchedAdam if fused and spec.device == "cpu" else MatchedAdam)(params, learning_rate, recipe)
    betas, capturable = (recipe.beta_1, recipe.beta_2), spec.execution == "graph"
    return torch.optim.Adam(params, lr=learning_rate, betas=betas, eps=recipe.epsilon, capturable=capturable)
