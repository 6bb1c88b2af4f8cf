"""The recipe's optimizer: torch's own under ``published``, one written-down arithmetic under ``matched``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from jobs.recipes import Sgd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs.adapter import RunSpec


class MatchedAdam(torch.optim.Optimizer):
    """Adam in the form of Kingma and Ba 2015, section 2, last paragraph, which is also Keras's.

    At step t, per weight: ``m += (1 - beta_1) (g - m)``, ``v += (1 - beta_2) (g² - v)``,
    ``w -= lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)``: epsilon stands outside the
    bias-corrected root, unlike in ``torch.optim.Adam``. The scalar factor is computed in float64.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        *,
        learning_rate: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
    ) -> None:
        super().__init__(
            params, {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
        )
        for group in self.param_groups:
            weights = group["params"]
            # A tensor on the device, so that a captured graph counts its own replays.
            group["t"] = torch.zeros((), dtype=torch.float64, device=weights[0].device)
            for weight in weights:
                self.state[weight]["m"] = torch.zeros_like(weight)
                self.state[weight]["v"] = torch.zeros_like(weight)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None
        for group in self.param_groups:
            beta_1, beta_2 = group["beta_1"], group["beta_2"]
            t = group["t"].add_(1)
            factor = group["learning_rate"] * torch.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            for weight in group["params"]:
                state = self.state[weight]
                m, v = state["m"], state["v"]
                m.lerp_(weight.grad, 1 - beta_1)
                v.lerp_(weight.grad.square(), 1 - beta_2)
                weight.sub_(m * factor.to(m.dtype) / v.sqrt().add_(group["epsilon"]))


class FusedMatchedAdam(torch.optim.Adam):
    """The same form through torch's fused kernel, which passes over the memory once; for CPUs.

    Torch's own form divides ``sqrt(v)`` by ``sqrt(1 - beta_2^t)`` before epsilon is added. With epsilon divided by it
    too, both forms are the same: ``(sqrt(v) + epsilon) / c = sqrt(v) / c + epsilon / c``. It changes with each step,
    so a captured graph could not hold it.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        *,
        learning_rate: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
    ) -> None:
        super().__init__(params, lr=learning_rate, betas=(beta_1, beta_2), eps=epsilon, fused=True)
        self._epsilon = epsilon

    def step(self, closure: Any = None) -> None:
        assert closure is None
        for group in self.param_groups:
            taken = self.state[group["params"][0]].get("step", 0)
            group["eps"] = self._epsilon / math.sqrt(1 - group["betas"][1] ** (int(taken) + 1))
        super().step()


def build_optimizer(spec: RunSpec, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    recipe = spec.recipe.optimizer
    # Fused kernels are several times quicker on a CPU; the streamed path stays what people write.
    quick = spec.protocol == "matched" and spec.device == "cpu" and spec.input == "resident"
    if isinstance(recipe, Sgd):
        # torch's own SGD is the matched form: v = momentum v + g, w -= lr v.
        return torch.optim.SGD(params, lr=spec.learning_rate, momentum=recipe.momentum, fused=quick)
    if spec.protocol == "matched":
        matched = FusedMatchedAdam if quick else MatchedAdam
        return matched(
            params,
            learning_rate=spec.learning_rate,
            beta_1=recipe.beta_1,
            beta_2=recipe.beta_2,
            epsilon=recipe.epsilon,
        )
    return torch.optim.Adam(
        params,
        lr=spec.learning_rate,
        betas=(recipe.beta_1, recipe.beta_2),
        eps=recipe.epsilon,
        capturable=spec.execution == "graph",
    )
