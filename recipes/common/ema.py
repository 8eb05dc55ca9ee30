"""An average of weights over the steps of a training, which generates better than the last ones."""

from __future__ import annotations

import torch


class ExponentialMovingAverage:
    """An average of a module's parameters and buffers, `decay` per step, warmed up from the start.

    The decay used at step n is min(decay, (1 + n) / (10 + n)), so early weights are forgotten.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged, current = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.state[name])
                current.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averaged, current, 1 - decay)
