"""What this library should compute, by diffusers alone: its modules, its schedulers, its pipelines' code.

Nothing of this library is used here, so that a misunderstanding in it cannot be in its tests as well.
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

Condition = dict[str, Any]


def plain_scheduler(pipeline: Any) -> Any:
    """Return DDIM or Euler's method for a model, made of the configuration of its own scheduler."""
    config = pipeline.scheduler.config
    if config.get("use_flow_sigmas"):
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(config, shift=config.flow_shift)
    if type(pipeline.scheduler).__name__.startswith("FlowMatch"):
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    # DDIM steps to t - 1000 // n, which is off the grid of "linspace".
    spacing = "leading" if config.timestep_spacing == "linspace" else config.timestep_spacing
    return diffusers.DDIMScheduler.from_config(config, clip_sample=False, timestep_spacing=spacing)


def set_times(pipeline: Any, scheduler: Any, steps: int, tokens: int) -> None:
    """Set a scheduler's times as the model's pipeline does."""
    options: dict[str, Any] = {}
    if isinstance(pipeline, diffusers.FluxPipeline):
        options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    if scheduler.config.get("use_dynamic_shifting"):
        config = scheduler.config
        options["mu"] = calculate_shift(
            tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
        )
    scheduler.set_timesteps(steps, **options)


def plain_sigmas(pipeline: Any, steps: int) -> list[float]:
    """Return a flow's descending sigmas before they are shifted, as its pipeline takes them."""
    if isinstance(pipeline, diffusers.FluxPipeline):
        return [float(sigma) for sigma in np.linspace(1.0, 1 / steps, steps)]
    scheduler = plain_scheduler(pipeline)
    return [float(sigma) for sigma in np.linspace(scheduler.sigma_max, scheduler.sigma_min, steps)]


def encode(pipeline: Any, prompts: list[str], negative: str | None) -> tuple[Condition, Condition]:
    """Return what the pipeline's `encode_prompt` gives, as inputs of the network."""
    others = [negative or ""] * len(prompts)
    if isinstance(pipeline, diffusers.StableDiffusionPipeline):
        states = pipeline.encode_prompt(prompts, "cpu", 1, True, others)
        return tuple({"encoder_hidden_states": state} for state in states)  # type: ignore[return-value]
    if isinstance(pipeline, diffusers.StableDiffusionXLPipeline):
        given = None if negative is None else others
        found, not_found, pooled, not_pooled = pipeline.encode_prompt(prompts, negative_prompt=given)
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        ids = torch.tensor([[side, side, 0, 0, side, side]] * len(prompts))
        return (
            {"encoder_hidden_states": found, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}},
            {
                "encoder_hidden_states": not_found,
                "added_cond_kwargs": {"text_embeds": not_pooled, "time_ids": ids},
            },
        )
    if isinstance(pipeline, diffusers.StableDiffusion3Pipeline):
        found, not_found, pooled, not_pooled = pipeline.encode_prompt(
            prompts, prompts, prompts, negative_prompt=others
        )
        return (
            {"encoder_hidden_states": found, "pooled_projections": pooled},
            {"encoder_hidden_states": not_found, "pooled_projections": not_pooled},
        )
    if isinstance(pipeline, diffusers.FluxPipeline):
        both = []
        for texts in (prompts, others):
            found, pooled, ids = pipeline.encode_prompt(texts, texts)
            both.append({"encoder_hidden_states": found, "pooled_projections": pooled, "txt_ids": ids})
        return both[0], both[1]
    options: dict[str, Any] = {}
    if isinstance(pipeline, diffusers.SanaPipeline):
        call = inspect.signature(diffusers.SanaPipeline.__call__).parameters
        options["complex_human_instruction"] = call["complex_human_instruction"].default
    found, mask, not_found, not_mask = pipeline.encode_prompt(
        prompts, negative_prompt=negative or "", **options
    )
    both = [
        {"encoder_hidden_states": states, "encoder_attention_mask": masks}
        for states, masks in ((found, mask), (not_found, not_mask))
    ]
    if isinstance(pipeline, diffusers.PixArtAlphaPipeline) and pipeline.transformer.config.sample_size == 128:
        resolution, ratio = torch.full((len(prompts), 2), 128.0), torch.ones(len(prompts), 1)
        for condition in both:
            condition["added_cond_kwargs"] = {"resolution": resolution, "aspect_ratio": ratio}
    elif not isinstance(pipeline, diffusers.SanaPipeline):
        for condition in both:
            condition["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    return both[0], both[1]


def ask(
    pipeline: Any, latents: torch.Tensor, t: torch.Tensor, condition: Condition, scale: float
) -> torch.Tensor:
    """Return what the network predicts: of packed latents for FLUX."""
    times = t.expand(len(latents))
    if isinstance(pipeline, diffusers.FluxPipeline):
        side = int(latents.shape[1] ** 0.5)
        ids = pipeline._prepare_latent_image_ids(1, side, side, latents.device, latents.dtype)
        guidance = torch.full((len(latents),), scale) if pipeline.transformer.config.guidance_embeds else None
        output = pipeline.transformer(
            latents, timestep=times / 1000, guidance=guidance, img_ids=ids, **condition
        )
    elif hasattr(pipeline, "unet"):
        output = pipeline.unet(latents, t, **condition)
    elif isinstance(pipeline, diffusers.SanaPipeline):
        times = times * pipeline.transformer.config.timestep_scale
        output = pipeline.transformer(latents, timestep=times, **condition)
    else:
        output = pipeline.transformer(latents, timestep=times, **condition)
    predicted: torch.Tensor = output.sample
    return predicted[:, : latents.shape[1]]


@torch.no_grad()
def denoise_plainly(
    pipeline: Any,
    latents: torch.Tensor,
    conditions: tuple[Condition, Condition],
    steps: int,
    start: int,
    guidance_scale: float,
) -> torch.Tensor:
    """Denoise by a plain loop over a network and a scheduler, from its `start`-th time on."""
    scheduler, shape = plain_scheduler(pipeline), latents.shape
    is_flux = isinstance(pipeline, diffusers.FluxPipeline)
    set_times(pipeline, scheduler, steps, shape[2] * shape[3] // 4)
    embeds_guidance = is_flux and pipeline.transformer.config.guidance_embeds
    if is_flux:
        latents = pipeline._pack_latents(latents, *shape)
    options: dict[str, Any] = {"eta": 0.0} if isinstance(scheduler, diffusers.DDIMScheduler) else {}
    if not options:
        scheduler.set_begin_index(start)
    for t in scheduler.timesteps[start:]:
        output = ask(pipeline, latents, t, conditions[0], guidance_scale)
        if guidance_scale != 1 and not embeds_guidance:
            other = ask(pipeline, latents, t, conditions[1], guidance_scale)
            output = other + guidance_scale * (output - other)
        latents = scheduler.step(output, t, latents, **options).prev_sample
    if is_flux:
        side = shape[2] * pipeline.vae_scale_factor
        latents = pipeline._unpack_latents(latents, side, side, pipeline.vae_scale_factor)
    return latents
