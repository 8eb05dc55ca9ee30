"""Small models of random weights, of every kind that the library takes; saved as diffusers saves them.

Three classes, of prompts `PROMPTS` where a model takes some. Latents are (4, 8, 8), but for "pixart-alpha":
(4, 128, 128), for which its network has further inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

from tests.support import tiny_encoders as encoders

PROMPTS = {0: "a photo of an ant", 1: "a photo of a bee or wasp", 2: "a photo of a cat"}
NEGATIVE = "a blurry picture"
STD = 0.15  # of weights: networks start with zeros in many places
FLUX_SIDE = 8  # of latents, instead of 128
LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def autoencoder(blocks: int = 2, **options: Any) -> Any:
    """Return a VAE that halves images once, or with a single block not at all."""
    torch.manual_seed(3)
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(4, 8)[:blocks],
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=4,
        **{"sample_size": 16, "scaling_factor": 0.18215, **options},
    )


def unet(**options: Any) -> Any:
    return encoders.fill(
        diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            norm_num_groups=4,
            cross_attention_dim=encoders.WIDTH,
            **options,
        ),
        STD,
    )


def dit(scheduler: Any) -> Any:
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=3,
    )
    return diffusers.DiTPipeline(encoders.fill(transformer, STD), autoencoder(), scheduler)


def dit_ddim() -> Any:
    return dit(diffusers.DDIMScheduler(**LINEAR, clip_sample=False))


def dit_flow() -> Any:
    return dit(diffusers.FlowMatchEulerDiscreteScheduler())


def stable_diffusion_1() -> Any:
    scheduler = diffusers.PNDMScheduler(**SCALED, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    scheduler.register_to_config(clip_sample=False)
    return _stable_diffusion(scheduler)


def stable_diffusion_2() -> Any:
    options: dict[str, Any] = {**SCALED, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return _stable_diffusion(diffusers.DDIMScheduler(**options, prediction_type="v_prediction"))


def _stable_diffusion(scheduler: Any) -> Any:
    tokenizer = encoders.clip_tokenizer()
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=encoders.clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Any:
    tokenizer = encoders.clip_tokenizer()
    width = encoders.WIDTH // 2
    scheduler = diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing="leading", steps_offset=1)
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(force_upcast=True),
        text_encoder=encoders.clip_encoder(tokenizer, width),
        text_encoder_2=encoders.clip_encoder(tokenizer, width, projection=True, seed=4),
        tokenizer=tokenizer,
        tokenizer_2=encoders.clip_tokenizer(),
        unet=unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + width,
        ),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _pixart(pipeline: Any, **options: Any) -> Any:
    tokenizer = encoders.t5_tokenizer()
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        caption_channels=encoders.WIDTH,
        **options,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(**LINEAR)
    vae = autoencoder(blocks=1 if options["sample_size"] == 128 else 2)
    return pipeline(
        tokenizer,
        encoders.t5_encoder(tokenizer),
        vae,
        encoders.fill(transformer, STD),
        scheduler,
    )


def pixart_alpha() -> Any:
    return _pixart(diffusers.PixArtAlphaPipeline, sample_size=128, patch_size=16)


def pixart_sigma() -> Any:
    return _pixart(
        diffusers.PixArtSigmaPipeline, sample_size=8, patch_size=2, use_additional_conditions=False
    )


def stable_diffusion_3(with_t5: bool = True) -> Any:
    width = encoders.WIDTH // 2
    tokenizer, third = encoders.clip_tokenizer(), encoders.t5_tokenizer() if with_t5 else None
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=encoders.WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=encoders.WIDTH,
        pos_embed_max_size=8,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=encoders.fill(transformer, STD),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=encoders.clip_encoder(tokenizer, width, projection=True),
        tokenizer=tokenizer,
        text_encoder_2=encoders.clip_encoder(tokenizer, width, projection=True, seed=4),
        tokenizer_2=encoders.clip_tokenizer(),
        text_encoder_3=encoders.t5_encoder(third) if with_t5 else None,
        tokenizer_3=third,
    )


def stable_diffusion_3_without_t5() -> Any:
    return stable_diffusion_3(with_t5=False)


def sana() -> Any:
    return _sana(
        diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    )


def sana_euler() -> Any:
    return _sana(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))


def _sana(scheduler: Any) -> Any:
    tokenizer = encoders.gemma_tokenizer()
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=encoders.WIDTH,
        sample_size=8,
        patch_size=1,
    )
    torch.manual_seed(3)
    vae = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.41407,
    )
    return diffusers.SanaPipeline(
        tokenizer, encoders.gemma_encoder(tokenizer), vae, encoders.fill(transformer, STD), scheduler
    )


def flux(guidance_embeds: bool = True) -> Any:
    tokenizer, second = encoders.clip_tokenizer(), encoders.t5_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=encoders.WIDTH,
        pooled_projection_dim=encoders.WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0 if guidance_embeds else 1.0, use_dynamic_shifting=guidance_embeds
    )
    return diffusers.FluxPipeline(
        scheduler=scheduler,
        vae=autoencoder(shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=encoders.clip_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=encoders.t5_encoder(second),
        tokenizer_2=second,
        transformer=encoders.fill(transformer, STD),
    )


def flux_schnell() -> Any:
    return flux(guidance_embeds=False)


PIPELINES: dict[str, Callable[[], Any]] = {
    "dit": dit_ddim,
    "dit-flow": dit_flow,
    "sd-1": stable_diffusion_1,
    "sd-2-v": stable_diffusion_2,
    "sdxl": stable_diffusion_xl,
    "pixart-alpha": pixart_alpha,
    "pixart-sigma": pixart_sigma,
    "sd-3": stable_diffusion_3,
    "sd-3-without-t5": stable_diffusion_3_without_t5,
    "sana": sana,
    "sana-euler": sana_euler,
    "flux-dev": flux,
    "flux-schnell": flux_schnell,
}


def save_kind(name: str, folder: Path) -> Path:
    """Save a model of a kind, and return its folder."""
    pipeline = PIPELINES[name]()
    pipeline.save_pretrained(folder)
    if name == "sd-1":  # as its repository has it
        (folder / "tokenizer" / "tokenizer.json").unlink()
        encoders.write_clip_files(folder / "tokenizer")
    if name.startswith("pixart"):
        (folder / "tokenizer" / "tokenizer.json").unlink()
        encoders.write_t5_files(folder / "tokenizer")
    return folder
