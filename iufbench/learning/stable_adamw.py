"""AdamW with update clipping: steps shrink where a gradient is much larger than its history.

Wortsman et al., "Stable and low-precision training for large-scale vision-language models", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class StableAdamW(torch.optim.Optimizer):
    """Per tensor, with bias corrections c1 = 1 - b1^t and c2 = 1 - b2^t:

    m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, u = max(u, v) (AMSGrad),
    d = sqrt(u / c2) + eps, s = max(1, RMS(g / d)),
    theta = (1 - lr wd) theta - lr / (c1 s) * m / d.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-10,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                state[name] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        count = float(state["step"])
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        torch.maximum(state["max_exp_avg_sq"], state["exp_avg_sq"], out=state["max_exp_avg_sq"])
        scale = (state["max_exp_avg_sq"] / (1 - second**count)).sqrt_().add_(group["eps"])
        calm = (gradient / scale).square_().mean().sqrt_().clamp_min_(1.0)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(state["exp_avg"] / scale * (group["lr"] / (1 - first**count) / calm))
