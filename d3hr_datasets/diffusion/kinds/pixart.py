"""PixArt-alpha and PixArt-Sigma: transformers of prompts that a T5 encoder has read."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch

from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind


class PixArt(ModelKind):
    """PixArt-alpha (arXiv 2310.00426) and PixArt-Sigma (arXiv 2403.04692)."""

    name = "PixArt-alpha and PixArt-Sigma"
    pipelines: ClassVar[tuple[str, ...]] = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    network = ("transformer", "PixArtTransformer2DModel")
    encoders = ("text_encoder", "tokenizer")

    def predict(
        self,
        network: Any,
        latents: torch.Tensor,
        times: torch.Tensor,
        condition: Inputs,
        guidance_scale: float,
        image_size: int,
    ) -> torch.Tensor:
        """Return the output for embeddings of prompts and their masks; for square images of its own size."""
        added: dict[str, torch.Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if network.config.sample_size == 128:  # as the pipeline says it
            added["resolution"] = latents.new_full((len(latents), 2), image_size)
            added["aspect_ratio"] = latents.new_ones((len(latents), 1))
        output: torch.Tensor = network(latents, timestep=times, added_cond_kwargs=added, **condition).sample
        return output

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return embeddings (P, tokens, width) and masks (P, tokens)."""
        found, mask, others, other_mask = pipeline.encode_prompt(
            prompts, negative_prompt=negative_prompt or "", device=pipeline.device
        )
        return _inputs(found, mask), _inputs(others[:1], other_mask[:1])


class Sana(PixArt):
    """SANA (arXiv 2410.10629): flow matching on the latents of a VAE that compresses 32 times."""

    name = "SANA"
    pipelines = ("SanaPipeline",)
    network = ("transformer", "SanaTransformer2DModel")
    vae = "AutoencoderDC"

    def predict(
        self,
        network: Any,
        latents: torch.Tensor,
        times: torch.Tensor,
        condition: Inputs,
        guidance_scale: float,
        image_size: int,
    ) -> torch.Tensor:
        """Return the output for embeddings of prompts and their masks."""
        times = times * network.config.timestep_scale
        output: torch.Tensor = network(latents, timestep=times, **condition).sample
        return output

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return embeddings (P, tokens, width) and masks (P, tokens).

        As where the pipeline is called, prompts come after an instruction to its language model, which
        `encode_prompt` alone leaves out.
        """
        call = inspect.signature(type(pipeline).__call__).parameters
        found, mask, others, other_mask = pipeline.encode_prompt(
            prompts,
            negative_prompt=negative_prompt or "",
            device=pipeline.device,
            complex_human_instruction=call["complex_human_instruction"].default,
        )
        return _inputs(found, mask), _inputs(others[:1], other_mask[:1])

    def unusable(self, network: Any) -> str | None:
        """Refuse networks that take the scale of guidance."""
        return "the transformer's guidance_embeds" if network.config.get("guidance_embeds") else None


def _inputs(embeddings: torch.Tensor, mask: torch.Tensor) -> Inputs:
    return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}
