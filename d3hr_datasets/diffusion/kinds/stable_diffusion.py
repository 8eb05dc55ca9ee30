"""Stable Diffusion 1.x, 2.x and XL: UNets of prompts."""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind


class StableDiffusion(ModelKind):
    """Stable Diffusion 1.x and 2.x (arXiv 2112.10752), which predict noise or v."""

    name = "Stable Diffusion 1.x and 2.x"
    pipelines = ("StableDiffusionPipeline",)
    network = ("unet", "UNet2DConditionModel")
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
        """Return the output for embeddings of prompts."""
        output: torch.Tensor = network(latents, times, **condition).sample
        return output

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return (P, tokens, width) of the prompts, (1, tokens, width) of the negative one."""
        negative = [negative_prompt or ""] * len(prompts)
        found, others = pipeline.encode_prompt(prompts, pipeline.device, 1, True, negative)
        return {"encoder_hidden_states": found}, {"encoder_hidden_states": others[:1]}

    def unusable(self, network: Any) -> str | None:
        """Refuse networks that take guidance, classes or images as further inputs."""
        for name in (
            "time_cond_proj_dim",
            "class_embed_type",
            "num_class_embeds",
            "addition_embed_type",
            "encoder_hid_dim_type",
        ):
            if network.config.get(name) is not None:
                return f"the UNet's {name} = {network.config[name]!r:.40}; accepted: null"
        return None


class StableDiffusionXL(ModelKind):
    """Stable Diffusion XL (arXiv 2307.01952): two encoders, and the size of images as a further input."""

    name = "Stable Diffusion XL"
    pipelines = ("StableDiffusionXLPipeline",)
    network = ("unet", "UNet2DConditionModel")
    encoders = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    upcasts_vae = True

    def predict(
        self,
        network: Any,
        latents: torch.Tensor,
        times: torch.Tensor,
        condition: Inputs,
        guidance_scale: float,
        image_size: int,
    ) -> torch.Tensor:
        """Return the output for embeddings of prompts and for whole images of the model's own size."""
        sizes = torch.tensor(
            [image_size, image_size, 0, 0, image_size, image_size], dtype=latents.dtype, device=latents.device
        )
        added = {"text_embeds": condition["text_embeds"], "time_ids": sizes.repeat(len(latents), 1)}
        output: torch.Tensor = network(
            latents,
            times,
            encoder_hidden_states=condition["encoder_hidden_states"],
            added_cond_kwargs=added,
        ).sample
        return output

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return the embeddings of both encoders, and the pooled ones of the second."""
        negative = None if negative_prompt is None else [negative_prompt] * len(prompts)
        found, others, pooled, other_pooled = pipeline.encode_prompt(
            prompts, device=pipeline.device, do_classifier_free_guidance=True, negative_prompt=negative
        )
        return (
            {"encoder_hidden_states": found, "text_embeds": pooled},
            {"encoder_hidden_states": others[:1], "text_embeds": other_pooled[:1]},
        )

    def unusable(self, network: Any) -> str | None:
        """Refuse networks of other further inputs than text and sizes."""
        config = network.config
        if config.get("addition_embed_type") != "text_time" or config.get("time_cond_proj_dim") is not None:
            return (
                f"the UNet's addition_embed_type = {config.get('addition_embed_type')!r:.40} and "
                f"time_cond_proj_dim = {config.get('time_cond_proj_dim')!r:.40}; accepted: 'text_time', null"
            )
        return None
