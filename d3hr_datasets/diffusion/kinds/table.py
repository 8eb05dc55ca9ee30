"""All kinds of models, and which one a model is of: the contents of `model_index.json` -> a kind."""

from __future__ import annotations

from typing import Any

from d3hr_datasets.diffusion.kinds.dit import DiT
from d3hr_datasets.diffusion.kinds.flux import Flux
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.kinds.pixart import PixArt, Sana
from d3hr_datasets.diffusion.kinds.stable_diffusion import StableDiffusion, StableDiffusionXL
from d3hr_datasets.diffusion.kinds.stable_diffusion_3 import StableDiffusion3
from d3hr_datasets.errors import ModelFormatError

DIT = DiT()
KINDS: tuple[ModelKind, ...] = (
    DIT,
    StableDiffusion(),
    StableDiffusionXL(),
    PixArt(),
    StableDiffusion3(),
    Sana(),
    Flux(),
)


def kind_of(index: dict[str, Any], model: object) -> ModelKind:
    """Return the kind of a model.

    Args:
        index: What its `model_index.json` says; a DiT may have none.
        model: How errors name it.

    Raises:
        ModelFormatError: It is of a kind that this library does not know.
    """
    name = index.get("_class_name", "DiTPipeline")
    for kind in KINDS:
        if name in kind.pipelines:
            return kind
    accepted = "; ".join(f"{kind.name} ({', '.join(kind.pipelines)})" for kind in KINDS)
    raise ModelFormatError(
        f"the diffusion model {model} is of {name!r:.80}, which is not supported; accepted: {accepted}"
    )
