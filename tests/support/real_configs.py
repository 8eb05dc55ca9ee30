"""Configurations of models that people use, as far as sizes go, and how many parameters these models have."""

from __future__ import annotations

from typing import Any

Config = tuple[str, dict[str, Any], float]

DOWN = "DownBlock2D"
ATTENTION = "CrossAttnDownBlock2D"
UP = "UpBlock2D"
UP_ATTENTION = "CrossAttnUpBlock2D"

NETWORKS: dict[str, Config] = {
    "Stable Diffusion 1.5": (
        "UNet2DConditionModel",
        {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
        860e6,
    ),
    "Stable Diffusion 2.1": (
        "UNet2DConditionModel",
        {
            "attention_head_dim": [5, 10, 20, 20],
            "cross_attention_dim": 1024,
            "sample_size": 96,
            "use_linear_projection": True,
        },
        866e6,
    ),
    "Stable Diffusion XL": (
        "UNet2DConditionModel",
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280],
            "cross_attention_dim": 2048,
            "down_block_types": [DOWN, ATTENTION, ATTENTION],
            "projection_class_embeddings_input_dim": 2816,
            "sample_size": 128,
            "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": [UP_ATTENTION, UP_ATTENTION, UP],
            "use_linear_projection": True,
        },
        2567e6,
    ),
    "PixArt-alpha": (
        "PixArtTransformer2DModel",
        {"caption_channels": 4096, "out_channels": 8, "sample_size": 128},
        611e6,
    ),
    "Stable Diffusion 3": (
        "SD3Transformer2DModel",
        {
            "attention_head_dim": 64,
            "caption_projection_dim": 1536,
            "in_channels": 16,
            "joint_attention_dim": 4096,
            "num_attention_heads": 24,
            "num_layers": 24,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
            "sample_size": 128,
        },
        2028e6,
    ),
    "Stable Diffusion 3.5 medium": (
        "SD3Transformer2DModel",
        {
            "attention_head_dim": 64,
            "caption_projection_dim": 1536,
            "dual_attention_layers": list(range(13)),
            "in_channels": 16,
            "joint_attention_dim": 4096,
            "num_attention_heads": 24,
            "num_layers": 24,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
            "sample_size": 128,
        },
        2243e6,
    ),
    "Stable Diffusion 3.5 large": (
        "SD3Transformer2DModel",
        {
            "attention_head_dim": 64,
            "caption_projection_dim": 2432,
            "in_channels": 16,
            "joint_attention_dim": 4096,
            "num_attention_heads": 38,
            "num_layers": 38,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
            "sample_size": 128,
        },
        8057e6,
    ),
    "SANA": (
        "SanaTransformer2DModel",
        {"caption_channels": 2304, "cross_attention_dim": 2240, "sample_size": 32},
        1604e6,
    ),
    "SANA of 4096 pixels": (
        "SanaTransformer2DModel",
        {
            "attention_head_dim": 32,
            "caption_channels": 2304,
            "interpolation_scale": 2.0,
            "num_attention_heads": 70,
            "patch_size": 1,
            "sample_size": 128,
        },
        1604e6,
    ),
    "FLUX.1": (
        "FluxTransformer2DModel",
        {"guidance_embeds": True, "in_channels": 64, "num_layers": 19, "num_single_layers": 38},
        11901e6,
    ),
    "VAE of SANA": (
        "AutoencoderDC",
        {
            "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
            "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
            "encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
            "decoder_block_out_channels": [128, 256, 512, 512, 1024, 1024],
            "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
            "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
            "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
            "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
            "decoder_norm_types": ["rms_norm"] * 6,
            "upsample_block_type": "interpolate",
        },
        299e6,
    ),
}

ENCODERS: dict[str, Config] = {
    "CLIP ViT-L": (
        "CLIPTextModel",
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12},
        123e6,
    ),
    "OpenCLIP ViT-bigG": (
        "CLIPTextModelWithProjection",
        {
            "hidden_act": "gelu",
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_attention_heads": 20,
            "num_hidden_layers": 32,
            "projection_dim": 1280,
        },
        695e6,
    ),
    "T5 v1.1 XXL": (
        "T5EncoderModel",
        {
            "d_ff": 10240,
            "d_kv": 64,
            "d_model": 4096,
            "feed_forward_proj": "gated-gelu",
            "num_heads": 64,
            "num_layers": 24,
            "vocab_size": 32128,
        },
        4762e6,
    ),
    "Gemma 2 2B": (
        "Gemma2Model",
        {
            "head_dim": 256,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_attention_heads": 8,
            "num_hidden_layers": 26,
            "num_key_value_heads": 4,
            "vocab_size": 256000,
        },
        2614e6,
    ),
}
