"""A network together with what it is conditioned on: latents, a time and class labels -> what it predicts.

The one place where classifier-free guidance doubles a batch, where precision is chosen, and where a batch is
filled up to a size that a CUDA graph is recorded of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from d3hr_datasets.diffusion.conditioning import Conditioning
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule
from d3hr_datasets.diffusion.recorded_sizes import RecordedSizes
from d3hr_datasets.numerics.torch_settings import neutral


@dataclass(eq=False)
class Denoiser:
    """What a walk asks.

    Args:
        network: diffusers' transformer or UNet.
        kind: How it is called.
        conditioning: What it is told of classes.
        schedule: What its output means.
        image_size: Side of its images in pixels.
        is_compiled: Whether `torch.compile` is to make one network for all sizes of a batch: guidance doubles
            batches, in an interval only some of them, and the last is smaller.
        recorded: Sizes that CUDA graphs are recorded of; None where there are no such graphs.
    """

    network: Any
    kind: ModelKind
    conditioning: Conditioning
    schedule: NoiseSchedule
    image_size: int
    is_compiled: bool = False
    recorded: RecordedSizes | None = None

    @neutral(grad=None)
    def __call__(
        self, latents: torch.Tensor, model_time: float, class_labels: torch.Tensor, guidance_scale: float
    ) -> torch.Tensor:
        """Return the network's output with guidance: out_null + scale * (out_class - out_null).

        A learned variance, the second half of some outputs, is dropped: deterministic steps have no use for
        it. Networks that take guidance as an input are asked once.

        Args:
            latents: (B, C, H, W).
            model_time: What the network is told of the time.
            class_labels: (B,) int64.
            guidance_scale: 1 runs the conditional network alone.

        Returns:
            (B, C, H, W) float32.
        """
        number = len(latents)
        if self.recorded is not None:
            missing = self.recorded.padded(number) - number
            latents, class_labels = _filled_up(latents, missing), _filled_up(class_labels, missing)
        doubled = guidance_scale != 1 and not self.kind.embeds_guidance(self.network)
        inputs = torch.cat([latents, latents]) if doubled else latents
        times = torch.full((len(inputs),), model_time, device=latents.device)
        condition = self.conditioning.inputs(class_labels, doubled)
        dtype = getattr(self.network, "dtype", latents.dtype)
        condition = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in condition.items()
        }
        inputs = inputs.to(dtype)
        if self.is_compiled:
            for tensor in (inputs, times, *condition.values()):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        if self.recorded is not None:
            torch.compiler.cudagraph_mark_step_begin()
        output = self.kind.predict(self.network, inputs, times, condition, guidance_scale, self.image_size)
        if self.recorded is not None:
            output = output.clone()  # a graph's next run writes where this one has written
        output = output[:, : latents.shape[1]].float()
        if doubled:
            conditional, unconditional = output.chunk(2)
            output = unconditional + guidance_scale * (conditional - unconditional)
        return output[:number]


def _filled_up(tensor: torch.Tensor, missing: int) -> torch.Tensor:
    """Return a batch with its last row so many times more."""
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor
