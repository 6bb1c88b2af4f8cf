"""The recipe's optimizer: torch's own under ``published``, the arithmetic of :mod:`jobs.recipes` under ``matched``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from jobs.recipes import Sgd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.adapter import RunSpec
    from jobs.recipes import Adam


class MatchedAdam(torch.optim.Optimizer):
    """The matched form of :class:`jobs.recipes.Adam`; its scalar factor is computed in float64."""

    def __init__(self, params: Iterable[torch.nn.Parameter], learning_rate: float, recipe: Adam) -> None:
        super().__init__(params, {"learning_rate": learning_rate, **asdict(recipe)})
        for group in self.param_groups:
            weights = group["params"]
            # A tensor on the device, so that a captured graph increments it in each replay.
            group["t"] = torch.zeros((), dtype=torch.float64, device=weights[0].device)
            for weight in weights:
                self.state[weight] = {"m": torch.zeros_like(weight), "v": torch.zeros_like(weight)}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # noqa: ARG002 - no closure is ever given
        for group in self.param_groups:
            beta_1, beta_2 = group["beta_1"], group["beta_2"]
            t = group["t"].add_(1)
            factor = group["learning_rate"] * torch.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            for weight in group["params"]:
                m, v = self.state[weight]["m"], self.state[weight]["v"]
                m.lerp_(weight.grad, 1 - beta_1)
                v.lerp_(weight.grad.square(), 1 - beta_2)
                weight.sub_(m * factor.to(m.dtype) / v.sqrt().add_(group["epsilon"]))


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
    # Fused kernels are several times faster on a CPU. The streamed path remains torch's usual code.
    fused = spec.protocol == "matched" and spec.device == "cpu" and spec.input == "resident"
    if isinstance(recipe, Sgd):
        # torch's own SGD is the matched form: v = momentum v + g, w -= lr v.
        return torch.optim.SGD(params, lr=learning_rate, momentum=recipe.momentum, fused=fused)
    if spec.protocol == "matched":
        return (FusedMatchedAdam if fused else MatchedAdam)(params, learning_rate, recipe)
    betas, capturable = (recipe.beta_1, recipe.beta_2), spec.execution == "graph"
    return torch.optim.Adam(params, lr=learning_rate, betas=betas, eps=recipe.epsilon, capturable=capturable)
