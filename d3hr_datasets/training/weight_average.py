"""An average of weights over the steps of a training, which generates better than the last ones.

In: parameters that are trained, by name. Out: diffusers' `EMAModel` of them, and the averages by name, as
checkpoints have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers.training_utils import EMAModel

Parameters = Mapping[str, torch.nn.Parameter]


def weight_average(parameters: Parameters, decay: float) -> EMAModel:
    """Return the average of parameters, `decay` per step, warmed up from the start.

    The decay used at step n is min(decay, (1 + n) / (10 + n)), so early weights are forgotten.
    """
    from diffusers.training_utils import EMAModel

    # EMAModel leaves out a step more than `update_after_step` says. With -1 none is left out.
    return EMAModel(parameters.values(), decay, update_after_step=-1, foreach=True)


def averaged_weights(average: EMAModel, parameters: Parameters) -> dict[str, torch.Tensor]:
    """Return the averages by the names of the parameters."""
    return dict(zip(parameters, average.shadow_params, strict=True))


def restore_average(
    average: EMAModel, parameters: Parameters, weights: Mapping[str, torch.Tensor], steps: int
) -> None:
    """Go on from `averaged_weights` after so many steps."""
    ordered = [
        weights[name].to(device=parameter.device, dtype=parameter.dtype)
        for name, parameter in parameters.items()
    ]
    average.load_state_dict({"shadow_params": ordered, "optimization_step": steps})
