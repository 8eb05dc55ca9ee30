"""An average of weights over the steps of a training, which generates better than the last ones.

In: a module that is trained. Out: diffusers' `EMAModel` of its parameters, and these by name, as checkpoints
have them.
"""

from __future__ import annotations

import torch
from diffusers.training_utils import EMAModel


def weight_average(module: torch.nn.Module, decay: float) -> EMAModel:
    """Return the average of a module's parameters, `decay` per step, warmed up from the start.

    The decay used at step n is min(decay, (1 + n) / (10 + n)), so early weights are forgotten.
    """
    # EMAModel leaves out a step more than `update_after_step` says. With -1 none is left out.
    return EMAModel(module.parameters(), decay, update_after_step=-1, foreach=True)


def averaged_weights(average: EMAModel, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the averaged parameters by their names in the module."""
    names = (name for name, _ in module.named_parameters())
    return dict(zip(names, average.shadow_params, strict=True))


def restore_average(
    average: EMAModel, module: torch.nn.Module, weights: dict[str, torch.Tensor], steps: int
) -> None:
    """Go on from `averaged_weights` after so many steps."""
    ordered = [weights[name] for name, _ in module.named_parameters()]
    average.load_state_dict({"shadow_params": ordered, "optimization_step": steps})
