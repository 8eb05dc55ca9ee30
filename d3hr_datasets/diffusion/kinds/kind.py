"""What a kind of model has to say: which parts of diffusers it consists of, and how its network is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

# Inputs of a network by name, one row for each element of a batch.
Inputs = dict[str, torch.Tensor]


class ModelKind(ABC):
    """A kind of latent diffusion model.

    Attributes:
        name: As README and errors name it.
        pipelines: Classes of diffusers that load it; `model_index.json` names one of them.
        network: Part and class of the network.
        vae: Class of the VAE.
        encoders: Parts that read prompts; none where the network takes class labels.
        optional_encoders: Those of `encoders` that a model may lack.
        linear_sigmas: Whether its pipeline spaces sigmas from 1 to 1/n itself.
        upcasts_vae: Whether its VAE overflows in half precision where its configuration says so.
    """

    name: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    network: ClassVar[tuple[str, str]]
    vae: ClassVar[str] = "AutoencoderKL"
    encoders: ClassVar[tuple[str, ...]] = ()
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    linear_sigmas: ClassVar[bool] = False
    upcasts_vae: ClassVar[bool] = False

    @property
    def takes_prompts(self) -> bool:
        """Whether a class is a prompt to it, and not a label."""
        return bool(self.encoders)

    @abstractmethod
    def predict(
        self,
        network: Any,
        latents: torch.Tensor,
        times: torch.Tensor,
        condition: Inputs,
        guidance_scale: float,
        image_size: int,
    ) -> torch.Tensor:
        """Return the network's output.

        Args:
            network: The network.
            latents: (B, C, H, W), in the network's precision.
            times: (B,) what it is told of the time.
            condition: What it is told of classes, B rows each.
            guidance_scale: Told to networks that take it; applied by the caller with all others.
            image_size: Side of the images in pixels, told to networks that take it.

        Returns:
            (B, C or 2C, H, W).
        """

    def encode_prompts(
        self, pipeline: Any, prompts: list[str], negative_prompt: str | None
    ) -> tuple[Inputs, Inputs | None]:
        """Return what the pipeline's text encoders make of prompts, P rows each, and of the negative one.

        Args:
            pipeline: diffusers' pipeline with its encoders.
            prompts: P of them.
            negative_prompt: None for what the pipeline takes where none is given.
        """
        raise NotImplementedError(f"{self.name} takes class labels, not prompts")

    def embeds_guidance(self, network: Any) -> bool:
        """Say whether the network takes the scale of guidance as an input, and is asked once."""
        return False

    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """Return (C, H, W) of one latent."""
        side = int(network.config.sample_size)
        return int(network.config.in_channels), side, side

    def num_tokens(self, network: Any) -> int:
        """Return the tokens of an image, by which some schedules are shifted."""
        _, height, width = self.latent_shape(network)
        patch = int(network.config.get("patch_size") or 1)
        return (height // patch) * (width // patch)

    def embedding_width(self, network: Any) -> int | None:
        """Return the width of embeddings of prompts that the network takes; None where it takes none."""
        for name in ("cross_attention_dim", "caption_channels", "joint_attention_dim"):
            if self.takes_prompts and isinstance(network.config.get(name), int):
                return int(network.config[name])
        return None

    def unusable(self, network: Any) -> str | None:
        """Return what of the network's configuration cannot be used, if anything."""
        return None
