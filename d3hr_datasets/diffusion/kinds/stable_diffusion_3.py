"""Stable Diffusion 3 and 3.5: transformers of prompts, trained on flow matching."""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind


class StableDiffusion3(ModelKind):
    """Stable Diffusion 3 and 3.5 (arXiv 2403.03206); the T5 encoder may be left out, as its authors say."""

    name = "Stable Diffusion 3 and 3.5"
    pipelines = ("StableDiffusion3Pipeline",)
    network = ("transformer", "SD3Transformer2DModel")
    encoders = (
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "tokenizer",
        "tokenizer_2",
        "tokenizer_3",
    )
    optional_encoders = ("text_encoder_3", "tokenizer_3")

    def predict(
        self,
        network: Any,
        latents: torch.Tensor,
        times: torch.Tensor,
        condition: Inputs,
        guidance_scale: float,
        image_size: int,
    ) -> torch.Tensor:
        """Return the velocity for embeddings of prompts."""
        output: torch.Tensor = network(latents, timestep=times, **condition).sample
        return output

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return the embeddings of all encoders, and the pooled ones of the first two."""
        negative = [negative_prompt or ""] * len(prompts)
        found, others, pooled, other_pooled = pipeline.encode_prompt(
            prompts, prompts, prompts, device=pipeline.device, negative_prompt=negative
        )
        return (
            {"encoder_hidden_states": found, "pooled_projections": pooled},
            {"encoder_hidden_states": others[:1], "pooled_projections": other_pooled[:1]},
        )
