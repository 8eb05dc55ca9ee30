"""DiT: a transformer of class labels, trained on noise or on flow matching."""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind


class DiT(ModelKind):
    """Class-conditional DiT (arXiv 2212.09748); with a scheduler of flow matching it is SiT's kind."""

    name = "DiT"
    pipelines = ("DiTPipeline",)
    network = ("transformer", "DiTTransformer2DModel")

    def predict(
        self,
        network: Any,
        latents: torch.Tensor,
        times: torch.Tensor,
        condition: Inputs,
        guidance_scale: float,
        image_size: int,
    ) -> torch.Tensor:
        """Return the output for `class_labels`."""
        output: torch.Tensor = network(latents, timestep=times, **condition).sample
        return output
