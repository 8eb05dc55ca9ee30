"""FLUX.1: a transformer of prompts, trained on flow matching, that takes packed latents."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind


class Flux(ModelKind):
    """FLUX.1 dev and schnell.

    Latents (C, H, W) are packed into (H W / 4) tokens of 4 C values where the network sees them, and nowhere
    else. The scale of guidance is an input of dev; schnell has none.
    """

    name = "FLUX.1"
    pipelines = ("FluxPipeline",)
    network = ("transformer", "FluxTransformer2DModel")
    encoders = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    linear_sigmas = True
    side: ClassVar[int] = 128  # of latents: its pipeline makes images of 1024 pixels

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
        number, channels, height, width = latents.shape
        tokens = latents.view(number, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        tokens = tokens.reshape(number, height * width // 4, 4 * channels)
        guidance = None
        if self.embeds_guidance(network):
            guidance = torch.full((number,), guidance_scale, dtype=torch.float32, device=latents.device)
        output = network(
            tokens,
            timestep=times.to(latents.dtype) / 1000,
            guidance=guidance,
            img_ids=_positions(height // 2, width // 2, latents),
            txt_ids=latents.new_zeros((condition["encoder_hidden_states"].shape[1], 3)),
            **condition,
        ).sample
        unpacked: torch.Tensor = output.view(number, height // 2, width // 2, channels, 2, 2)
        return unpacked.permute(0, 3, 1, 4, 2, 5).reshape(number, channels, height, width)

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return the embeddings of T5 and the pooled ones of CLIP."""
        inputs = []
        for texts in (prompts, [negative_prompt or ""]):
            found, pooled, _ = pipeline.encode_prompt(texts, texts, device=pipeline.device)
            inputs.append({"encoder_hidden_states": found, "pooled_projections": pooled})
        return inputs[0], inputs[1]

    def embeds_guidance(self, network: Any) -> bool:
        """Say whether it is dev."""
        return bool(network.config.guidance_embeds)

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """Return (C, H, W); the network takes any size."""
        return int(network.config.in_channels) // 4, self.side, self.side

    def num_tokens(self, network: Any) -> int:
        """Return the number of packed latents."""
        return self.side * self.side // 4


def _positions(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Return (0, row, column) of every token, (H W, 3)."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=like.device), torch.arange(width, device=like.device), indexing="ij"
    )
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1)
    return places.reshape(height * width, 3).to(like.dtype)
